"""An audience gets another slug: the id is set, the new one is filled, the old one is retired."""

from datetime import UTC, datetime, timedelta

import pytest

from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from tests.configuration import DELETE, UPSERT, trigger
from tests.integration.ops.relay import BEGUN_AT, LYTICS, payload
from tests.integration.ops.terminal import on_a_terminal
from tests.members import known_by_a_sync

OLD, NEW = "vip", "gold"
OLD_ID = OLD * 3
EVERYBODY = [f"p{n}@example.com" for n in range(20)]
LEAVERS, STAYERS = EVERYBODY[:10], EVERYBODY[10:]
URLS = {"enter": UPSERT, "exit": DELETE}


def members(sandbox, slug):
    held = sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
    return {email for email, slugs in held.items() if slug in slugs}


def people(relay, emails):
    file = relay.settings.folder / "people.ndjson"
    file.write_text("".join(f'{{"email": "{email}"}}\n' for email in emails))
    return file


def told(email, slug, direction="enter", minute=10, audience_id=OLD_ID):
    """Return a payload of the audience under either slug; "" = without its id."""
    whole = payload(email, slug, direction, minute)
    whole["data"]["segment_events"][0]["id"] = audience_id
    return whole


@pytest.fixture
def inside(relay):
    """Twenty people are in the audience, for whose slugs there are triggers of their own."""
    own = (
        trigger(f"{slug}-{on}", audiences=[slug], on=on, template=f"{on}.jsonnet", url=url)
        for slug in (OLD, NEW)
        for on, url in URLS.items()
    )
    relay.configure("".join(own) + LYTICS.format(url="http://127.0.0.1:9"), triggers="")
    relay.deliver(*(payload(email) for email in EVERYBODY))
    known_by_a_sync(relay, EVERYBODY)
    return relay


def test_in_the_end_everybody_is_in_the_new_audience_only_and_nobody_who_left_is_in_either(
    inside, call, sandbox
):
    exits = (inside.settings.folder / "templates" / "exit.jsonnet").read_text()
    inside.template("exit.jsonnet", "error 'broken'")
    inside.deliver(*(payload(email, OLD, "exit", minute=5) for email in LEAVERS[:5]))
    inside.template("exit.jsonnet", exits)
    inside.publish(*(payload(email, OLD, "exit", minute=5) for email in LEAVERS[5:]))
    inside.publish(payload("waits@example.com", minute=5))

    call("audience", "set", OLD_ID, NEW)
    rows = people(inside, [*STAYERS, "waits@example.com"])
    started = call("backfill", "start", rows, "--audience", NEW, "--as-of", "now")
    now = (datetime.now(UTC) - BEGUN_AT) / timedelta(minutes=1)
    inside.deliver(told(STAYERS[0], NEW, "exit", minute=now + 2))
    assert members(sandbox, NEW) == {*STAYERS[1:], "waits@example.com"}
    inside.publish(told("last@example.com", OLD, minute=6, audience_id=""))
    retired = call("audience", "retire", OLD, "--yes")
    replayed = call("dlq", "replay", "--all", "--yes")
    inside.drain_all()

    assert (started.exit_code, retired.exit_code, replayed.exit_code) == (0, 0, 0)
    assert inside.status()["dead"] == 0
    assert members(sandbox, NEW) == {*STAYERS[1:], "waits@example.com"}
    assert members(sandbox, OLD) == set()


def test_who_enters_while_it_is_asked_whether_to_retire_leaves_too(inside, sandbox):
    def entered_meanwhile():
        inside.publish(payload("new@example.com"))

    on_a_terminal(
        *("audience", "retire", OLD),
        meanwhile=entered_meanwhile,
        SEGRELAY_CONFIG=str(inside.settings.source),
        TERM="dumb",
    )
    inside.drain_all()

    assert members(sandbox, OLD) == set()


def test_whom_a_file_names_leaves_by_a_backfill_of_exits(inside, call, sandbox):
    rows = people(inside, EVERYBODY[:18])

    call("backfill", "start", rows, "--audience", OLD, "--on", "exit", "--as-of", "now")
    inside.drain_all()

    assert members(sandbox, OLD) == set(EVERYBODY[18:])
