"""The watch of a chaos run: no count falls, but for what only a lost master had."""

from types import SimpleNamespace

import pytest

from tools.chaos.watching import Watch

ONE, OTHER = frozenset({"one"}), frozenset({"other"})


def status(accepted):
    return {"accepted": accepted, "waiting": accepted, "delivered": 0, "skipped": 0, "dead": 0,
            "discarded": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("replicas", "masters", "falls"),
    [(1, ONE, True), (1, OTHER, False), (1, ONE | OTHER, False), (0, OTHER, True)],
)
def test_a_count_falls_only_with_a_lost_master_whose_replicas_have_not_confirmed(
    replicas, masters, falls
):
    answers = [(status(200), ONE), (status(100), masters)]
    settings = SimpleNamespace(redis=SimpleNamespace(replicas=replicas))
    rig = SimpleNamespace(settings=settings, ask_redis=lambda *_, **__: answers.pop(0))
    watch = Watch(rig)
    for _ in range(2):
        watch.look()

    assert [message.partition(" ")[2] for message in watch.broken] == (
        ["accepted fell from 200 to 100"] if falls else []
    )
