"""A Cluster whose nodes are lost after four seconds."""

import pytest

from tests.topologies import LocalCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with LocalCluster(tmp_path_factory.mktemp("cluster"), node_ms=4_000) as started:
        yield started
