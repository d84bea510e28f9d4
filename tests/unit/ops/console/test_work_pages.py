"""What the pages of jobs and syncs say of a run that waits for a person."""

from segrelay.producer.sync.run import Phase, Run


def test_a_run_that_waits_is_the_one_in_doubt():
    run = Run(number=7, phase=Phase.CONFIRM, gone={"insider": 200, "other": 3})
    run.last = {"outcome": "doubted", **run.results()}

    assert run.doubted == (7, 200)


def test_while_the_next_run_is_under_way_the_last_one_is_in_doubt():
    last = {"outcome": "doubted", "doubt": "200 are gone", "gone": 200, "run": 7}
    run = Run(number=8, phase=Phase.SCAN, gone={"insider": 12}, last=last)

    assert run.doubted == (7, 200)


def test_nobody_is_in_doubt_otherwise():
    assert Run(number=8, phase=Phase.SCAN, last={"outcome": "done"}).doubted is None
    assert Run(number=8, phase=Phase.IDLE).doubted is None
