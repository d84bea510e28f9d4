"""A console without users: for this machine, masked, and it acts on nothing."""

import signal
import subprocess

import httpx
import pytest

from segrelay.ops.run.up import own_command
from tests.journeys.console.world import Browser, World, event, words
from tests.waiting import until
from tests.warm import WarmProcess


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("open"), is_open=True) as it:
        it.start_console()
        it.publish([event("w@example.com"), event("x@example.com", slug="vipp")])
        yield it


def test_it_shows_without_a_login_and_masked(world):
    browser = Browser(world.url)

    for path in ("/", "/letters", "/quarantine", "/waiting", "/tap", "/audit"):
        answer = browser.get(path)
        assert answer.status_code == 200
        assert "@example.com" not in answer.text
    until(lambda: "no worker" in words(browser.get("/").text))
    assert "Nothing is delivered: no worker has been seen" in words(browser.get("/waiting").text)


def test_it_acts_on_nothing(world):
    answer = Browser(world.url).post("/act", act="pause", name="insider", why="no")

    assert answer.status_code == 403


def test_it_does_not_listen_for_others_without_users(world):
    answer = world.command("console", "--listen", "0.0.0.0:0")

    assert answer.returncode == 2
    assert b"[console.users.NAME]" in answer.stderr


def test_the_demo_is_shown_until_somebody_ends_it():
    with WarmProcess(
        own_command("demo", "--console", "--people", "200", "--events", "100"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    ) as demo:
        lines = iter(demo.stderr.readline, b"")
        told = next(line for line in lines if b"The console is at" in line).decode()
        address = told.split("at ")[1].split("/:")[0]
        next(line for line in lines if b"The demo is over" in line)

        until(lambda: "no samples yet" not in words(httpx.get(address).text), 300)
        page = words(httpx.get(address).text)
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)

    assert "All is well ; 0 dead" in page
    assert demo.returncode == 0


def test_a_password_becomes_a_hash(world):
    answer = world.command("console", "password", "--json", given=b"correct horse battery\n")
    short = world.command("console", "password", given=b"short\n")

    assert b'"hash": "scrypt:' in answer.stdout
    assert (short.returncode, short.stdout) == (2, b"")
