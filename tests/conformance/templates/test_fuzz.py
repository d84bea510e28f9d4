"""A short run of the fuzzer; `make fuzz` runs as long as one likes."""

import subprocess
import sys

from tests.nightly import amount

RENDERS = amount(800, nightly=60_000)
SECONDS = amount(120, nightly=1_800)


def test_no_random_template_differs_without_gojsonnet_taking_the_compiled_side(tmp_path):
    command = [sys.executable, "-m", "ops.fuzz", "--seed", "5", "--renders", str(RENDERS)]

    run = subprocess.run(
        [*command, "--seconds", str(SECONDS), "--report", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )

    assert run.returncode == 0, run.stdout + (tmp_path / "wrong.json").read_text()
    assert "value / value (same)" in run.stdout
