"""Asynchronous tests, and a client of Redis."""

import inspect
from contextlib import closing

import pytest

from segrelay.worker.contract.redis.connection import connect
from tests.integration.worker.adapters.sending import run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an asynchronous test in an event loop of its own, which ends in time."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in arguments}))
    return True


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as connected:
        yield connected
