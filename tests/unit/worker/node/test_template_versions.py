"""Which versions of templates the processes of a node work with, told by all of them at once."""

import multiprocessing
import os

import pytest

from segrelay.worker.node.shared import TemplateReports, TemplateUse

FORKED = multiprocessing.get_context("fork")
TIMES = 300


def tell(told: TemplateReports) -> None:
    for number in range(TIMES):
        versions = {f"trigger-{at}": str(number) * (1 + number % 7) for at in range(number % 40)}
        told.report(os.getpid(), TemplateUse(versions, doubted={f"{number % 50}.jsonnet": number}))
        told.in_use()


def test_what_processes_tell_at_the_same_moment_can_be_read():
    shared = TemplateReports()
    telling = [FORKED.Process(target=tell, args=(shared,)) for _ in range(4)]
    for process in telling:
        process.start()
    for process in telling:
        process.join(60)

    assert [process.exitcode for process in telling] == [0] * 4


@pytest.mark.parametrize(
    ("mine", "others", "told"),
    [
        pytest.param(
            TemplateUse(refused={"t": "line 1"}, stopped={"u": "env:TOKEN"}, looked_at=5.0),
            TemplateUse(looked_at=6.0),
            {"refused": {}, "stopped": {}},
            id="what was mended is well once one process has looked",
        ),
        pytest.param(
            TemplateUse(doubted={"a.jsonnet": 3}),
            TemplateUse(doubted={"a.jsonnet": 1, "b.jsonnet": 2}),
            {"doubted": {"a.jsonnet": 3, "b.jsonnet": 2}},
            id="of several that doubt a template the most counts",
        ),
    ],
)
def test_the_reports_of_the_processes_that_run_are_summed_up(mine, others, told):
    node = TemplateReports()
    node.report(os.getpid(), mine)
    alone = {name: node.in_use()[name] for name in told}

    node.report(os.getppid(), others)

    assert alone == {name: getattr(mine, name) for name in told}
    assert {name: node.in_use()[name] for name in told} == told
