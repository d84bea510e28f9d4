"""A small segrelay on a real Redis and the sandbox."""

from contextlib import closing

import pytest

from tests.commands import called
from tests.integration.ops.relay import EXIT, LYTICS, Relay


@pytest.fixture
def relay(tmp_path, redis_url, sandbox, client):
    with closing(Relay(tmp_path, redis_url, sandbox.url, client)) as relay:
        yield relay


@pytest.fixture
def call(relay, monkeypatch):
    """Call a command with the configuration of the relay."""
    monkeypatch.setenv("SEGRELAY_CONFIG", str(relay.settings.source))
    return called


@pytest.fixture
def relay_of_a_sync(relay, sandbox):
    """Twelve members came by a sync, a minute ago by the clock of Lytics, and were delivered."""
    relay.configure(EXIT + LYTICS.format(url=sandbox.url))
    sandbox.settings(lytics={"date_offset_seconds": -60.0})
    rows = [
        {"_uid": f"u{n:03}", "email": f"p{n}@example.com", "segments": ["vip"]} for n in range(12)
    ]
    sandbox.post("lytics/profiles", rows)
    relay.sync()
    relay.drain()
    sandbox.settings(lytics={"date_offset_seconds": 0.0})
    return relay
