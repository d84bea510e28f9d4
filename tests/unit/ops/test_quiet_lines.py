"""What `segrelay up` shows of its children on a terminal."""

from segrelay.ops.run.up import QuietLines


def test_lines_about_drains_are_shown_once_a_second_and_warnings_always():
    shown = []
    quiet = QuietLines(lambda name, line: shown.append((name, line)))

    for number in range(5):
        quiet.show("worker", f"[info ] drain.ended partition={number}")
    quiet.show("worker", "[warning ] drain.ended failed=True")
    quiet.show("redis", "ready")
    quiet.look()

    assert shown == [
        ("worker", "[info ] drain.ended partition=0"),
        ("worker", "[warning ] drain.ended failed=True"),
        ("redis", "ready"),
    ]


def test_what_was_held_back_is_counted_when_its_second_is_over():
    shown = []
    quiet = QuietLines(lambda _, line: shown.append(line), every_seconds=0.0)
    quiet.show("worker", "drain.ended partition=0")
    quiet.hold("worker", "drain.ended", "drain.ended partition=1")
    quiet.hold("worker", "drain.ended", "drain.ended partition=2")

    quiet.look()

    assert shown[-1] == "drain.ended partition=2 (and 1 more)"
