"""Which templates a node no longer renders by their compiled form, told by its processes."""

from segrelay.worker.node.shared import DoubtedTemplates


def test_of_several_processes_the_most_counts():
    doubted = DoubtedTemplates()
    assert doubted.read() == {}

    doubted.add({"a.jsonnet": 1})
    doubted.add({"b.jsonnet": 2})
    doubted.add({"a.jsonnet": 3})
    doubted.add({"a.jsonnet": 1})

    assert doubted.read() == {"a.jsonnet": 3, "b.jsonnet": 2}
