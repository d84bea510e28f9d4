import pytest

from tests.journeys.channel import Channel
from tests.journeys.receiver import Receiver


@pytest.fixture
def channel():
    with Channel() as found:
        yield found


@pytest.fixture
def receiver():
    return Receiver()
