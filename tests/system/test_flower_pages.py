"""Flower's pages as a person sees them, in a real Chromium.

SEGRELAY_PICTURE names a file for the picture that docs/ has of the list of drains.
"""

import os
from pathlib import Path

import pytest

from segrelay.sandbox.people import Happening
from tests.configuration import table
from tests.journeys.play import AN_HOUR_AGO_US, SHORT, Rig, lines, send, start_worker
from tests.journeys.receiver import answers
from tests.ports import own_port
from tests.system.chromium import Chromium
from tests.waiting import until

PASSWORD = "a-password-of-nobody"
ROWS = "[...document.querySelectorAll('#tasks-table tbody tr')].map(row => row.innerText)"
FAILED_ROW = (
    "[...document.querySelectorAll('#tasks-table tbody tr')]"
    ".find(row => row.innerText.includes('FAILURE'))"
)
WORKERS = "[...document.querySelectorAll('#workers-table tbody tr')].map(row => row.innerText)"


@pytest.fixture
def flower(tmp_path):
    """Drains that delivered, and one whose delivery died; returns the URL of Flower."""
    port = own_port()
    (tmp_path / "rig").mkdir()
    flower = table("flower", listen=f"127.0.0.1:{port}", password=PASSWORD)
    with Rig(tmp_path / "rig", delivery_lines=SHORT, more=flower) as rig:
        start_worker(rig)
        rig.start_beside("flower")
        until(lambda: answers(f"http://127.0.0.1:{port}/healthcheck"), 60)
        rig.sandbox.settings(poison="person0@", poison_status=200)
        send(rig, lines(happened(40)))
        rig.wait_until_empty(60)
        yield f"http://127.0.0.1:{port}"


def happened(count):
    at = AN_HOUR_AGO_US
    for number in range(count):
        who = f"person{number}@example.com"
        yield Happening(who, "vip", is_exit=False, time_us=at + number)


def test_whoever_signs_in_sees_drains_one_drain_and_the_workers(flower, tmp_path):
    with Chromium(tmp_path / "profile") as page:
        assert page.open(f"{flower}/tasks") == 401
        page.sign_in("ops", "wrong")
        assert page.open(f"{flower}/tasks") == 401

        page.sign_in("ops", PASSWORD)
        assert page.open(f"{flower}/tasks") == 200
        rows = until(lambda: drains(page, flower))
        assert any("segrelay.drain" in row for row in rows)
        assert any("insider, partition " in row and ", live" in row for row in rows)
        assert "example.com" not in page.text()
        picture = page.picture()

        assert page.evaluate("document.querySelector('#tasks-table td .text-bg-danger').innerText")
        page.evaluate(f"{FAILED_ROW}.querySelector('a[href*=\"/task/\"]').click()")
        told = until(lambda: "task details" in (text := page.text()).lower() and text)
        assert "dead 1" in told
        assert "insider, partition " in told

        assert page.open(f"{flower}/workers") == 200
        until(
            lambda: (
                ["worker0@" in row and "Online" in row for row in page.evaluate(WORKERS)] == [True]
            )
        )

    assert picture.startswith(b"\x89PNG")
    if name := os.environ.get("SEGRELAY_PICTURE"):
        Path(name).write_bytes(picture)


def drains(page, flower):
    """Return the rows once there is a drain that delivered, and one that ended badly."""
    page.open(f"{flower}/tasks")
    rows = until(lambda: page.evaluate(ROWS))
    states = {row.split("\t")[2].strip() for row in rows if row.count("\t") > 2}
    return rows if states >= {"SUCCESS", "FAILURE"} else None
