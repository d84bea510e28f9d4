"""The sandbox imports nothing of the product; what both know is written twice and compared."""

from urllib.parse import urlsplit

from segrelay.ops import sandbox as commands
from segrelay.sandbox import __main__ as process
from segrelay.sandbox import settings as switches
from segrelay.worker import logs
from segrelay.worker.contract.settings import (
    DEFAULT_AUDIENCE_ATTRIBUTE,
    DEFAULT_SANDBOX,
    ENDPOINTS_PATH,
    TOKEN_PATH,
)


def test_paths_ports_and_names_are_the_same_on_both_sides():
    assert switches.ENDPOINTS_PATH == ENDPOINTS_PATH
    assert switches.TOKEN_PATH == TOKEN_PATH
    assert switches.AUDIENCE_ATTRIBUTE == DEFAULT_AUDIENCE_ATTRIBUTE
    assert process.LOG_FORMAT_VARIABLE == logs.FORMAT_VARIABLE
    default = urlsplit(DEFAULT_SANDBOX)
    assert (default.hostname, default.port) == (process.LOOPBACK, process.DEFAULT_PORT)
    assert (default.hostname, default.port) == (commands.LOOPBACK, commands.DEFAULT_PORT)
    assert process.__spec__.parent == commands.MODULE
