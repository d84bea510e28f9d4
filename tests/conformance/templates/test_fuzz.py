"""A short run of the fuzzer, `make fuzz` runs as long as one likes; and how its judge is read."""

import subprocess
import sys

import pytest

from tests.nightly import amount
from tests.waiting import allowed
from tools.fuzz.__main__ import agrees
from tools.fuzz.engines import judged

RENDERS = amount(60, nightly=60_000)
SECONDS = amount(120, nightly=1_800)


def test_no_random_template_differs_without_gojsonnet_taking_the_compiled_side(tmp_path):
    command = [sys.executable, "-m", "tools.fuzz", "--seed", "5", "--renders", str(RENDERS)]

    run = subprocess.run(
        [*command, "--seconds", str(SECONDS), "--report", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=SECONDS + allowed(60),
        check=False,
    )

    assert run.returncode == 0, run.stdout + (tmp_path / "wrong.json").read_text()
    assert "value / value (same)" in run.stdout


@pytest.mark.parametrize("said", ["another", "", '"" (empty string)', "null"])
def test_the_judge_does_not_take_our_side_where_its_error_is_another(said, tmp_path):
    (tmp_path / "t.jsonnet").write_text("error 'something else'")

    [verdict] = judged(tmp_path, "t.jsonnet", [b"{}"], b"{}")

    assert not agrees(("assert", said), verdict)
