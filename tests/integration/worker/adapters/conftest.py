"""Where the tests of this folder have their Redis."""

import pytest

from tests.topologies import LocalCluster


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the address of an empty Redis, and that of an empty Cluster."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    cluster: LocalCluster = request.getfixturevalue("local_cluster")
    cluster.empty()
    return cluster.url
