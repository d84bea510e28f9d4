"""A short run of the fuzzer; `make fuzz` runs as long as one likes."""

import subprocess
import sys


def test_no_random_template_differs_without_gojsonnet_taking_the_compiled_side(tmp_path):
    command = [sys.executable, "-m", "ops.fuzz", "--seed", "5", "--renders", "1200"]

    run = subprocess.run(
        [*command, "--seconds", "120", "--report", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert run.returncode == 0, run.stdout + (tmp_path / "wrong.json").read_text()
    assert "value / value (same)" in run.stdout
