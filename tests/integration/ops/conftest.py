"""A small segrelay on a real Redis and the sandbox."""

from contextlib import closing

import pytest
from typer.testing import CliRunner

from ops.sandbox.process import SandboxProcess
from tests.integration.ops.relay import Relay
from worker.contract.redis.connection import connect


@pytest.fixture(scope="session")
def sandbox_process():
    with SandboxProcess() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process):
    sandbox_process.reset()
    sandbox_process.settings(poison="", poison_status=400, credentials_status=0)
    return sandbox_process


@pytest.fixture
def relay(tmp_path, redis_url, sandbox):
    with closing(connect(redis_url)) as client:
        yield Relay(tmp_path, redis_url, sandbox.url, client)


@pytest.fixture
def call(relay, monkeypatch):
    """Call a command's app, as a person at a terminal that is none."""
    monkeypatch.setenv("SEGRELAY_CONFIG", str(relay.settings.source))

    def run(app, *arguments, stdin=None):
        result = CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
