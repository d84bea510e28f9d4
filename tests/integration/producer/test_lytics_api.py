"""The client of Lytics' API, against the stand-in over a real socket."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from segrelay.producer.lytics import LyticsApi, begun_us
from segrelay.worker.contract.settings.sections import LyticsSettings
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.errors import (
    ConfigurationInvalid,
    LyticsRefused,
    LyticsUnavailable,
)
from tests.integration.producer.sync_world import person
from tests.rig import SandboxProcess
from tests.waiting import allowed

TOKEN = "a-token-of-nobody"


@pytest.fixture(autouse=True)
def members(sandbox: SandboxProcess) -> None:
    sandbox.post("lytics/profiles", [person(n, "vip") for n in range(230)])


def api(sandbox: SandboxProcess, *, tries: int = 8) -> LyticsApi:
    settings = LyticsSettings(base_url=sandbox.url, token=Secret("literal", TOKEN))
    return LyticsApi(settings, tries=tries, sleep=lambda _: None)


def test_all_members_come_in_pages_of_a_hundred(sandbox: SandboxProcess) -> None:
    with api(sandbox) as lytics:
        pages = list(lytics.pages("vip"))

    assert [len(page.rows) for page in pages] == [100, 100, 30]
    assert {page.total for page in pages} == {230}


def test_a_page_tells_the_time_by_lytics_clock(sandbox: SandboxProcess) -> None:
    sandbox.settings(lytics={"date_offset_seconds": 86_400.0})

    with api(sandbox) as lytics:
        at = lytics.scan("vip").at

    assert at is not None
    assert abs(at - datetime.now(UTC) - timedelta(days=1)) < timedelta(seconds=10)


@pytest.mark.parametrize("switches", [{"status_as_text": True}, {"error_shares": {"429": 0.3}}])
def test_what_can_succeed_later_is_tried_again(
    sandbox: SandboxProcess, switches: dict[str, Any]
) -> None:
    sandbox.settings(lytics=switches)

    with api(sandbox, tries=40) as lytics:
        rows = [row for page in lytics.pages("vip") for row in page.rows]

    assert len(rows) == 230


def test_a_refused_token_is_named_but_never_printed(sandbox: SandboxProcess) -> None:
    sandbox.settings(lytics={"token": "another"})

    with api(sandbox) as lytics, pytest.raises(LyticsRefused, match=r"token of \[lytics\]") as told:
        lytics.scan("vip")

    assert TOKEN not in str(told.value)


def test_an_outage_ends_after_some_tries_with_what_it_was(sandbox: SandboxProcess) -> None:
    sandbox.settings(lytics={"error_shares": {"503": 1.0}})

    with api(sandbox, tries=3) as lytics, pytest.raises(LyticsUnavailable, match=r"3 tries.*503"):
        lytics.scan("vip")


def test_who_does_not_exist_is_none(sandbox: SandboxProcess) -> None:
    with api(sandbox) as lytics:
        assert lytics.profile("email", "nobody@example.com") is None
        assert lytics.profile("email", "p1@example.com") is not None


def test_a_token_that_is_not_set_is_named() -> None:
    settings = LyticsSettings(token=Secret("env:LYTICS_TOKEN", None, "it is not set"))

    with pytest.raises(ConfigurationInvalid, match="LYTICS_TOKEN"):
        LyticsApi(settings)


def test_a_scan_is_true_as_of_the_begin_of_its_first_request(sandbox: SandboxProcess) -> None:
    sandbox.settings(lytics={"answer_seconds": 1.5})
    before = time.time()

    with api(sandbox) as lytics:
        scan, now = lytics.scan("vip"), time.time()
        began = begun_us(scan, round(1e6 * now)) / 1e6

    assert before - allowed(3) < began <= now - 1.5
