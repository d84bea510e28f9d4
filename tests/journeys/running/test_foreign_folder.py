"""In a folder that has packages with the names of ours, everything works and none of it runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from segrelay.ops.run.up import own_command
from tests.configuration import configuration, credentials, insider, trigger
from tests.journeys.judging import entrances
from tests.journeys.receiver import Receiver, answers
from tests.ports import own_port
from tests.waiting import until
from tests.warm import run

SEGRELAY = Path(sys.executable).with_name("segrelay")
MODULES = (
    "worker/__init__.py", "worker/app.py", "worker/adapters/__init__.py",
    "producer/__init__.py", "ops/__init__.py", "ops/embedded/__init__.py", "ops/main.py",
    "celeryconfig.py", "redis.py", "orjson.py", "celery/__init__.py", "rjsonnet.py", "_jsonnet.py",
)  # fmt: skip
WRITES = "import pathlib; pathlib.Path({trace!r}).open('a').write(__name__); raise SystemExit(9)\n"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def environment(tmp_path: Path, receiver: Receiver) -> dict[str, str]:
    """The environment of our commands, with a configuration of a sandbox run."""
    text = configuration(
        receiver.table(),
        credentials(),
        insider(authorization="insider"),
        trigger("enter", template="insider/enter.jsonnet"),
    )
    path = tmp_path / "segrelay.toml"
    path.write_text(f'templates = "{ROOT / "templates"}"\n{text}')
    sandbox = f"http://127.0.0.1:{own_port()}"
    return os.environ | {
        "SEGRELAY_CONFIG": str(path),
        "SEGRELAY_SANDBOX": sandbox,
        "CELERY_WORKER_CONCURRENCY": "1",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of somebody else, whose modules leave a trace when they are executed."""
    executed = tmp_path / "executed"
    for module in MODULES:
        path = tmp_path / "theirs" / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(WRITES.format(trace=str(executed)))
    yield tmp_path / "theirs"
    assert not executed.exists(), executed.read_text()


def test_packages_in_the_current_folder_are_never_executed_while_events_are_delivered(
    folder: Path, environment: dict[str, str], receiver: Receiver
) -> None:
    sandbox, log = environment["SEGRELAY_SANDBOX"], folder.parent / "up.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [SEGRELAY, "up", "--sandbox"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            process_group=0,
        ) as up,
    ):
        try:
            until(lambda: answers(f"{receiver.url}/healthz"), 90, else_show=log)
            assert receiver.post(entrances(3)) == 200
            until(lambda: answers(f"{sandbox}/_sandbox/health"), 90, else_show=log)
            until(lambda: len(held_at(sandbox)) == 3, 90, else_show=log)
        finally:
            os.killpg(up.pid, signal.SIGINT)

    assert up.returncode == 0


def held_at(sandbox: str) -> dict[str, list[str]]:
    """Return the people that a sandbox knows, with their audiences."""
    report = f"{sandbox}/_sandbox/memberships?attribute=lytics_computed_attr"
    return httpx.get(report, trust_env=False, timeout=60).json()


@pytest.mark.nightly
def test_packages_in_the_current_folder_are_never_executed_by_an_engine(
    folder: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [SEGRELAY, "template", "check", "insider/enter.jsonnet"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.nightly
def test_a_worker_stays_in_the_foreground() -> None:
    """In the background Celery would start itself by names that the current folder may have."""
    done = run(own_command("worker", "--detach"))

    assert done.returncode == 2
    assert b"stays in the foreground" in done.stderr
