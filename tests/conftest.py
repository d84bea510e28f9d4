"""The hooks of a run; what tests share stands in `shared_fixtures.py`.

A process that only hands out tests to others starts earlier without it.
"""

import signal

import pytest

from tests.processor_time import (  # noqa: F401 - hooks
    pytest_runtest_makereport,
    pytest_terminal_summary,
)

# A shell that runs tests in the background lets them ignore Ctrl-C, and so what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.shared_fixtures")
