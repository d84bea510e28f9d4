"""A configuration, a publisher and a client on a real Redis."""

from contextlib import closing

import pytest

from producer.doorbell import SilentDoorbell
from producer.publish import Publisher
from worker.contract.redis.connection import connect
from worker.contract.settings import load_settings

TRIGGER = """
[triggers.{name}]
destination = "insider"
audiences = {audiences}
on = "{on}"
template = "any.jsonnet"
url = "/api/user/v1/upsert"
{more}
"""
CONFIGURATION = """
{top}
[redis]
url = "{url}"
high_water = {high_water}
[delivery]
identity = "{identity}"
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
rate = "25000/min"
"""


def trigger(name, audiences=("vip",), on="enter", more=""):
    quoted = "[" + ", ".join(f'"{audience}"' for audience in audiences) + "]"
    return TRIGGER.format(name=name, audiences=quoted, on=on, more=more)


@pytest.fixture
def configure(tmp_path, redis_url):
    """Write a configuration with these triggers, and load it."""

    def write(*triggers, identity="email", url=redis_url, high_water=1_000_000):
        (tmp_path / "templates").mkdir(exist_ok=True)
        (tmp_path / "templates" / "any.jsonnet").write_text("{}")
        text = CONFIGURATION.format(top="", url=url, identity=identity, high_water=high_water)
        triggers = triggers or (trigger("vip-enter"), trigger("vip-exit", on="exit"))
        (tmp_path / "segrelay.toml").write_text(text + "".join(triggers))
        return load_settings(tmp_path / "segrelay.toml", environ={})

    return write


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as connected:
        yield connected


@pytest.fixture
def doorbell():
    return SilentDoorbell()


@pytest.fixture
def publisher_of(client, doorbell):
    return lambda settings: Publisher(client, settings, doorbell=doorbell)


@pytest.fixture
def publisher(configure, publisher_of):
    return publisher_of(configure())
