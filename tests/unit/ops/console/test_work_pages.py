"""What the pages of jobs and syncs say of a run that waits for a person."""

import pytest

from segrelay.producer.sync.run import Phase, Run

GONE = Run(number=7, phase=Phase.CONFIRM, gone={"insider": 200, "other": 3})
LAST = {"outcome": "doubted", "doubt": "200 are gone", "gone": 200, "run": 7}


@pytest.mark.parametrize(
    ("run", "last", "doubted"),
    [
        (GONE, {"outcome": "doubted", **GONE.results()}, (7, 200)),
        (Run(number=8, phase=Phase.SCAN, gone={"insider": 12}), LAST, (7, 200)),
        (Run(number=8, phase=Phase.SCAN), {"outcome": "done"}, None),
        (Run(number=8, phase=Phase.IDLE), {}, None),
    ],
    ids=["it waits", "the next one is under way", "the last one is done", "there was none"],
)
def test_the_run_in_doubt_is_the_last_that_waits(run, last, doubted):
    run.last = last

    assert run.doubted == doubted
