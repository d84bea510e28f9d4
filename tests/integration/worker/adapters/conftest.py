"""Asynchronous tests, and where the tests of this folder have their Redis."""

import inspect

import pytest

from tests.integration.worker.adapters.sending import run
from tests.topologies import LocalCluster


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an asynchronous test in an event loop of its own, which ends in time."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in arguments}))
    return True


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the address of an empty Redis, and that of an empty Cluster."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    cluster: LocalCluster = request.getfixturevalue("local_cluster")
    cluster.empty()
    return cluster.url
