"""A configuration and a publisher on a real Redis."""

import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from tests.configuration import delivery, insider, settings_in, trigger


@pytest.fixture
def configure(tmp_path, redis_url):
    """Write a configuration with these triggers, and load it."""

    def write(*triggers, identity="email", url=redis_url, high_water=1_000_000):
        triggers = triggers or (trigger("vip-enter"), trigger("vip-exit", on="exit"))
        tables = (delivery(identity=identity), insider(), *triggers)
        return settings_in(tmp_path, *tables, redis=url, high_water=high_water)

    return write


@pytest.fixture
def waker():
    return SilentWaker()


@pytest.fixture
def publisher_of(client, waker):
    return lambda settings: Publisher(client, settings, waker=waker)


@pytest.fixture
def publisher(configure, publisher_of):
    return publisher_of(configure())
