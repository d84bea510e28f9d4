"""What a plan says: the same seed breaks the same, as often as was asked."""

import random
from collections import Counter

from segrelay.sandbox.settings import SandboxSettings
from tools.chaos.plan import LATE_SECONDS, SANDBOX_LATE_SECONDS, Disruption, Plan


def test_every_disruption_happens_as_often_as_was_asked():
    disruptions = Counter(Plan(worker_kills=61, redis_kills=5).disruptions(random.Random(1)))

    assert disruptions[Disruption.KILL_WORKER] + disruptions[Disruption.KILL_CHILD] == 61
    assert disruptions[Disruption.KILL_REDIS] == 5


def test_in_a_cluster_masters_are_stopped_and_slots_moved_as_often_as_masters_are_killed():
    disruptions = Counter(Plan(redis_kills=3, redis="cluster").disruptions(random.Random(1)))

    assert disruptions[Disruption.KILL_REDIS] == 3
    assert disruptions[Disruption.STOP_MASTER] == disruptions[Disruption.MOVE_SLOT] == 3
    assert Disruption.MOVE_SLOT not in Plan(redis_kills=3).disruptions(random.Random(1))


def test_the_same_seed_breaks_in_the_same_order():
    assert Plan().disruptions(random.Random(3)) == Plan().disruptions(random.Random(3))


def test_the_sandbox_takes_the_switches_of_a_plan():
    settings = SandboxSettings.model_validate(Plan().sandbox_settings())

    assert round(sum(settings.error_shares.values()), 6) == 0.1
    assert settings.late_seconds == SANDBOX_LATE_SECONDS < LATE_SECONDS
