"""A second run for failed tests of real processes; `make` loads this plugin, plain pytest does not.

One test in thousands that misses its time on a busy machine does not refuse a delivery, but it is
named at the end of the run, because a test that needed a second run is a defect.
"""

import pytest

SECOND_RUN = ("tests/journeys/", "tests/integration/", "tests/system/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SECOND_RUN):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    failed_once = terminalreporter.stats.get("rerun", [])
    if not failed_once:
        return
    terminalreporter.section("TESTS THAT NEEDED A SECOND RUN", red=True, bold=True)
    for report in failed_once:
        terminalreporter.write_line(f"{report.nodeid} ({report.when})", red=True, bold=True)
        terminalreporter.write_line(report.longreprtext)
    terminalreporter.write_line(
        "Each is a defect, in the test or in what it tests, and has to be mended.", red=True
    )
