"""A configuration, a publisher and a client on a real Redis."""

from contextlib import closing

import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from tests.configuration import configuration, delivery, insider, trigger


@pytest.fixture
def configure(tmp_path, redis_url):
    """Write a configuration with these triggers, and load it."""

    def write(*triggers, identity="email", url=redis_url, high_water=1_000_000):
        (tmp_path / "templates").mkdir(exist_ok=True)
        (tmp_path / "templates" / "any.jsonnet").write_text("{}")
        triggers = triggers or (trigger("vip-enter"), trigger("vip-exit", on="exit"))
        tables = (delivery(identity=identity), insider(), *triggers)
        text = configuration(*tables, redis=url, high_water=high_water)
        (tmp_path / "segrelay.toml").write_text(text)
        return load_settings(tmp_path / "segrelay.toml", environ={})

    return write


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as connected:
        yield connected


@pytest.fixture
def waker():
    return SilentWaker()


@pytest.fixture
def publisher_of(client, waker):
    return lambda settings: Publisher(client, settings, waker=waker)


@pytest.fixture
def publisher(configure, publisher_of):
    return publisher_of(configure())
