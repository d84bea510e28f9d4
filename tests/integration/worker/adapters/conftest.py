"""Where the tests of this folder have their Redis."""

import pytest

from tests.topologies import LocalCluster


@pytest.fixture(params=["redis", pytest.param("cluster", marks=pytest.mark.nightly)])
def url(request: pytest.FixtureRequest) -> str:
    """Return the address of an empty Redis, and by night that of an empty Cluster.

    By day each call is watched for keys of two slots: see `tests/slots.py`.
    """
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    cluster: LocalCluster = request.getfixturevalue("local_cluster")
    cluster.empty()
    return cluster.url
