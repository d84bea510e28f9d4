"""What the first page says above all, and what only those who may act are offered."""

import re

from tests.integration.ops.console.conftest import PROXY, browser_at
from tests.integration.ops.relay import payload
from tests.journeys.console.console_world import words


def test_one_line_and_the_menu_tell_how_it_stands_and_buttons_are_for_those_who_may_use_them(
    console, served, relay, call
):
    relay.configure()
    call("pause", "vip-enter", "--why", "a test")
    relay.publish(payload("ann@example.com"), payload("ben@example.com", audience=""))

    page = console.get("/?span=week&of=trigger:vip-enter").text

    said = words(page)
    ill = re.search(r"(\d) ill\b.*?; 0 dead; backlog 1, its end is not known\.", said)[1]
    assert "The last week of vip-enter" in said
    assert f"<title>({ill} ill) Now" in page
    assert f"Now {ill} A person Dead letters Quarantine 1 Waiting 1 Jobs" in said
    for section, acts in (
        ({}, set()),
        ({"proxy": PROXY | {"roles": ["viewer"]}}, {"discard"}),
        ({"proxy": PROXY | {"roles": ["operator"]}}, {"discard", "resume", "pause"}),
    ):
        one = browser_at(served(**section))
        pages = one.get("/").text + one.get("/waiting").text
        assert set(re.findall(r"/act\?act=(\w+)", pages)) == acts, section
