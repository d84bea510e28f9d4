"""The short run of `make chaos` in a Cluster, in a file of its own beside the one of Sentinels."""

from collections import Counter

from tests.journeys.running.test_chaos import BROKEN, short_chaos
from tools.chaos.plan import Disruption


def test_a_short_chaos_in_a_cluster_breaks_no_promise(tmp_path):
    short_chaos(tmp_path, "cluster", BROKEN + Counter([Disruption.MOVE_SLOT]))
