"""Processor seconds of each test file, the processes that it started included.

`SEGRELAY_TESTS_TIMES=20 pytest …` shows the dearest twenty. What the embedded Valkey of all tests
takes is in the sum of `make test`, which looks at the whole machine, and in none of the files.
"""

import os
import resource
from collections import Counter
from collections.abc import Iterator

import pytest

_SHOWN = int(os.environ.get("SEGRELAY_TESTS_TIMES", "0"))
_NAME = "processor_seconds"
_BEFORE = pytest.StashKey[float]()
_forked_seconds = [0.0]


def add(seconds: float) -> None:
    """Count a process that was forked for us elsewhere, and has ended."""
    _forked_seconds[0] += seconds


def taken() -> float:
    """Return the processor seconds of this process and of all that it has waited for."""
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return _forked_seconds[0] + sum(use.ru_utime + use.ru_stime for use in uses)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Give the last report of a test the seconds since the end of the test before."""
    report = yield
    if call.when == "teardown":
        before = item.session.stash.get(_BEFORE, 0.0)
        item.session.stash[_BEFORE] = taken()
        report.user_properties = [(_NAME, item.session.stash[_BEFORE] - before)]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the files that took most."""
    files: Counter[str] = Counter()
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        name = getattr(report, "nodeid", "").partition("::")[0]
        files[name] += dict(getattr(report, "user_properties", ())).get(_NAME, 0.0)
    for name, seconds in files.most_common(_SHOWN):
        if seconds:
            terminalreporter.write_line(f"{seconds:8.1f} s  {name}")
