"""The script that installs what the system's tests need leaves the machine as it was."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "ops/test-system.sh"


@pytest.fixture
def run(tmp_path):
    """Run the script as if by root, with an apt-get that fails or works, and nothing installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("rm", "mv", "chmod", "cp"):
        (programs / name).symlink_to(f"/bin/{name}")

    def run_with(apt: str) -> int:
        for name, text in {"apt-get": apt, "id": "echo 0"}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        environment = {"PATH": str(programs), "POLICY_FILE": str(tmp_path / "policy-rc.d")}
        done = subprocess.run(["/bin/sh", SCRIPT], env=environment, check=False)
        return done.returncode

    return run_with


@pytest.mark.parametrize(("apt", "code"), [("exit 0", 0), ("exit 100", 100)])
def test_a_policy_that_was_there_is_there_again(run, tmp_path, apt, code):
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0 # ours\n")
    policy.chmod(0o750)

    assert run(apt) == code

    assert policy.read_text() == "#!/bin/sh\nexit 0 # ours\n"
    assert policy.stat().st_mode & 0o777 == 0o750
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bin", "policy-rc.d"]


def test_services_are_kept_from_starting_meanwhile_and_not_longer(run, tmp_path):
    assert run('[ "$1" = update ] || exec "$POLICY_FILE"') == 101

    assert sorted(each.name for each in tmp_path.iterdir()) == ["bin"]
