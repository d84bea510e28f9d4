"""Which versions of templates the processes of a node work with, told by all of them at once."""

import multiprocessing
import os

import pytest

from segrelay.worker.node.shared import DoubtedTemplates, TemplateUse, TemplateVersions

FORKED = multiprocessing.get_context("fork")
TIMES = 300


def tell_versions(told: TemplateVersions) -> None:
    for number in range(TIMES):
        version = str(number) * (1 + number % 7)
        told.report(
            os.getpid(), TemplateUse({f"trigger-{at}": version for at in range(number % 40)})
        )
        told.in_use()


def add_doubts(doubted: DoubtedTemplates) -> None:
    for number in range(TIMES):
        doubted.add({f"{os.getpid()}-{number % 50}.jsonnet": number})
        doubted.read()


@pytest.mark.parametrize(
    ("tell", "shared"), [(tell_versions, TemplateVersions()), (add_doubts, DoubtedTemplates())]
)
def test_what_processes_tell_at_the_same_moment_can_be_read(tell, shared):
    telling = [FORKED.Process(target=tell, args=(shared,)) for _ in range(4)]
    for process in telling:
        process.start()
    for process in telling:
        process.join(60)

    assert [process.exitcode for process in telling] == [0] * 4


def test_how_many_events_needed_the_engine_is_added_up_over_the_processes_that_run():
    node = TemplateVersions()
    mine = {"a.jsonnet": {"": 900, "std.exp": 100}}
    node.report(os.getpid(), TemplateUse({"t": "1"}, engine_use=mine))
    node.report(os.getppid(), TemplateUse({"t": "1"}, engine_use={"a.jsonnet": {"": 10}}))

    assert node.in_use()["engine_use"] == {"a.jsonnet": {"": 910, "std.exp": 100}}


def test_a_mended_template_is_well_once_one_process_has_looked():
    node = TemplateVersions()
    node.report(os.getppid(), TemplateUse({"t": "1"}, {"t": "line 1"}, looked_at=5.0))
    assert node.in_use()["refused"] == {"t": "line 1"}

    node.report(os.getpid(), TemplateUse({"t": "2"}, looked_at=6.0))

    assert node.in_use()["refused"] == {}


def test_of_several_processes_that_doubt_a_template_the_most_counts():
    doubted = DoubtedTemplates()

    for found in ({"a.jsonnet": 1}, {"b.jsonnet": 2}, {"a.jsonnet": 3}, {"a.jsonnet": 1}):
        doubted.add(found)

    assert doubted.read() == {"a.jsonnet": 3, "b.jsonnet": 2}
