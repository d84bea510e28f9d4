import pytest

from tests.integration.ops.moving.stock import stock


@pytest.fixture
def used(relay):
    """Exits were delivered, older enters and others wait, and some lie dead."""
    stock(relay, 12)
    relay.close()
    return relay
