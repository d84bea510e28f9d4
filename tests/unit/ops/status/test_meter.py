"""How quickly the counts grow."""

from pathlib import Path

from segrelay.ops.status.pace import ProgressMeter
from segrelay.ops.status.standing import Condition, JobStanding, Standing
from segrelay.ops.status.totals import KINDS, Counts
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import JOB


def counts(*, jobs=None, **given):
    return Standing(Settings.empty(Path("/nowhere")), 0, Counts(**given), jobs=jobs or {})


def test_the_first_look_measures_nothing():
    meter = ProgressMeter(2)
    meter.look(with_job(), 5.0)

    assert meter.rates() is meter.of("job|load") is None


def test_a_rate_is_what_was_added_a_second_since_the_last_look():
    meter = ProgressMeter(2)
    meter.look(counts(accepted=10_000), 1.0)
    meter.look(counts(accepted=100), 5.0)
    meter.look(counts(accepted=400, delivered=50), 7.0)

    found = meter.rates()

    assert found == dict.fromkeys(KINDS, 0.0) | {"accepted": 150.0, "delivered": 25.0}


def with_job(**given):
    return counts(jobs={"load": JobStanding(Condition(JOB), Counts(**given))})


def test_the_pace_of_a_job_is_that_of_the_last_ten_seconds():
    pace = ProgressMeter()
    for second in range(30):
        done = 0 if second < 15 else (second - 15) * 100
        pace.look(with_job(delivered=done), float(second))

    assert pace.of("job|load") == 100.0
    assert pace.of("job|other") is None
