"""A Cluster whose nodes are lost after two seconds."""

import pytest

from tests.topologies import LocalCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with LocalCluster(tmp_path_factory.mktemp("cluster"), node_ms=2_000) as started:
        yield started
