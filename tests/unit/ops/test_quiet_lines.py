"""What `segrelay up` shows of its children on a terminal."""

from segrelay.ops.run.up import QuietLines


def test_lines_about_drains_are_shown_once_a_second_and_warnings_always():
    shown = []
    quiet = QuietLines(lambda name, line: shown.append((name, line)))

    for number in range(1_000):
        quiet.show("worker", f"[info ] drain.ended partition={number}")
    quiet.show("worker", "[warning ] drain.ended failed=True")
    quiet.show("redis", "ready")

    assert shown[0] == ("worker", "[info ] drain.ended partition=0")
    assert shown[-2:] == [("worker", "[warning ] drain.ended failed=True"), ("redis", "ready")]
    assert len(shown) < 100
