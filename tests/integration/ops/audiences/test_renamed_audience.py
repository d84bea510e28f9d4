"""An audience is renamed while people leave it: whatever comes, the newest event decides."""

import os
import pty
from contextlib import suppress

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.ops.moving.leases import await_holders
from segrelay.ops.run.up import own_command
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.errors import UsageWrong
from tests.configuration import DELETE, UPSERT, trigger
from tests.integration.ops.relay import payload
from tests.nightly import amount
from tests.warm import WarmProcess

EVERYBODY = [f"p{n}@example.com" for n in range(20)]
LEAVERS, STAYERS = EVERYBODY[:10], EVERYBODY[10:]
URLS = {"enter": UPSERT, "exit": DELETE}


def members(sandbox, slug):
    held = sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
    return {email for email, slugs in held.items() if slug in slugs}


def people(relay, emails=EVERYBODY):
    file = relay.settings.folder / "people.ndjson"
    file.write_text("".join(f'{{"email": "{email}"}}\n' for email in emails))
    return file


def enter(relay, emails=EVERYBODY, slug="vip", minute=0):
    relay.publish(*(payload(email, slug, minute=minute) for email in emails))


def leave(relay, emails=LEAVERS, slug="vip", minute=5):
    relay.publish(*(payload(email, slug, "exit", minute=minute) for email in emails))


def rename(relay, call, old="vip", new="gold"):
    command = ("rename", "audience", old, new, "--people", people(relay), "--yes", "--json")
    return orjson.loads(call(app, *command).stdout)


def own_triggers(relay, *slugs):
    """Let each slug have triggers of its own."""
    text = "".join(
        trigger(f"{slug}-{on}", audiences=[slug], on=on, template=f"{on}.jsonnet", url=url)
        for slug in slugs
        for on, url in URLS.items()
    )
    relay.configure(text, triggers="")


@pytest.fixture(
    params=amount(["triggers of their own"], nightly=["triggers for all", "triggers of their own"])
)
def inside(request, relay):
    """Twenty people are in the audience."""
    if request.param == "triggers of their own":
        own_triggers(relay, "vip", "gold")
    enter(relay)
    relay.drain()
    return relay


def drain_all(relay):
    for _ in range(3):
        relay.drain()
    assert relay.status()["waiting"] == 0


def test_who_has_left_while_the_exits_waited_is_in_neither_audience(inside, call, sandbox):
    leave(inside)

    rename(inside, call)
    drain_all(inside)

    assert members(sandbox, "gold") == set(STAYERS)
    assert members(sandbox, "vip") == set()


def test_a_late_exit_under_the_old_slug_counts_for_the_new_one(inside, call, sandbox):
    rename(inside, call)
    drain_all(inside)
    assert members(sandbox, "gold") == set(EVERYBODY)

    leave(inside)
    drain_all(inside)

    assert members(sandbox, "gold") == set(STAYERS)


def test_an_exit_that_comes_late_and_is_older_than_the_entrance_changes_nothing(
    inside, call, sandbox
):
    rename(inside, call)
    drain_all(inside)

    leave(inside, minute=-5)
    drain_all(inside)

    assert members(sandbox, "gold") == set(EVERYBODY)


@pytest.mark.parametrize("minute", [3, 5])
def test_an_entrance_that_comes_late_does_not_pass_an_exit_from_before_the_renaming(
    inside, call, sandbox, minute
):
    leave(inside, minute=5)
    drain_all(inside)
    rename(inside, call)
    drain_all(inside)

    enter(inside, LEAVERS, minute=minute)
    drain_all(inside)

    assert members(sandbox, "gold") == set(STAYERS)
    assert members(sandbox, "vip") == set()


def test_an_entrance_that_is_newer_than_an_exit_from_before_the_renaming_counts(
    inside, call, sandbox
):
    leave(inside, minute=5)
    drain_all(inside)
    rename(inside, call)

    enter(inside, LEAVERS, minute=6)
    drain_all(inside)

    assert members(sandbox, "gold") == set(EVERYBODY)


def test_a_producer_that_has_not_heard_of_the_renaming_harms_nobody(inside, call, sandbox):
    stale = Publisher(inside.client, inside.settings, waker=SilentWaker())
    stale.publish([orjson.dumps(payload("new@example.com"))])

    rename(inside, call)
    stale.publish([orjson.dumps(payload(one, "vip", "exit", minute=5)) for one in LEAVERS])
    drain_all(inside)

    assert members(sandbox, "gold") == {*STAYERS, "new@example.com"}
    assert members(sandbox, "vip") == set()


def test_an_exit_that_was_dead_counts_for_the_new_slug_when_it_is_replayed(inside, call, sandbox):
    exits = (inside.settings.folder / "templates" / "exit.jsonnet").read_text()
    inside.template("exit.jsonnet", "error 'broken'")
    leave(inside)
    inside.drain()
    inside.template("exit.jsonnet", exits)
    assert inside.status()["dead"] == len(LEAVERS)

    rename(inside, call)
    drain_all(inside)
    call(app, "dlq", "replay", "--all", "--yes")
    drain_all(inside)

    assert members(sandbox, "gold") == set(STAYERS)
    assert members(sandbox, "vip") == set()


def test_what_comes_for_people_without_a_name_takes_them_out_of_the_old_slug(inside, call, sandbox):
    told = call(
        app, "rename", "audience", "vip", "gold", "--people", people(inside, STAYERS), "--yes"
    )
    leave(inside)
    drain_all(inside)

    assert told.exit_code == 1
    assert members(sandbox, "gold") == set(STAYERS)
    assert members(sandbox, "vip") == set()


def test_a_renaming_and_its_way_back_leave_the_members_as_they_were(inside, call, sandbox):
    rename(inside, call)
    drain_all(inside)
    leave(inside)

    rename(inside, call, "gold", "vip")
    drain_all(inside)
    rename(inside, call)
    rename(inside, call, "gold", "vip")
    drain_all(inside)

    assert members(sandbox, "vip") == set(STAYERS)
    assert members(sandbox, "gold") == set()


def test_once_no_trigger_names_the_old_slug_its_events_still_count(relay, call, sandbox):
    own_triggers(relay, "vip", "gold")
    enter(relay)
    relay.drain()
    rename(relay, call)
    drain_all(relay)

    own_triggers(relay, "gold")
    leave(relay)
    drain_all(relay)

    assert members(sandbox, "gold") == set(STAYERS)


def test_a_destination_that_would_lose_the_exits_is_refused(relay, call):
    own_triggers(relay, "vip", "gold")
    text = relay.settings.source.read_text()
    relay.settings.source.write_text(text.replace("[triggers.gold-exit]", "[triggers.silver-exit]"))
    text = relay.settings.source.read_text()
    head, _, tail = text.partition("[triggers.silver-exit]")
    relay.settings.source.write_text(
        head + "[triggers.silver-exit]" + tail.replace('audiences = ["gold"]', 'audiences = ["s"]')
    )

    with pytest.raises(UsageWrong, match="'insider' wants the exit of audience 'gold'"):
        call(app, "rename", "audience", "vip", "gold", "--yes")


def test_who_leaves_while_the_question_is_on_the_screen_is_in_neither_audience(inside, sandbox):
    file = people(inside)

    def left_meanwhile():
        leave(inside)
        inside.drain()

    asked(inside, left_meanwhile, "rename", "audience", "vip", "gold", "--people", str(file))
    drain_all(inside)

    assert members(sandbox, "gold") == set(STAYERS)
    assert members(sandbox, "vip") == set()


def test_who_enters_while_it_is_asked_whether_to_retire_leaves_too(inside, sandbox):
    file = people(inside)

    def entered_meanwhile():
        enter(inside, ["new@example.com"])

    asked(inside, entered_meanwhile, "audience", "retire", "vip", "--people", str(file))
    drain_all(inside)

    assert members(sandbox, "vip") == set()


def asked(relay, meanwhile, *arguments):
    """Give a command in a pseudo-terminal; do something while it asks, and say yes."""
    environment = {**os.environ, "SEGRELAY_CONFIG": str(relay.settings.source), "TERM": "dumb"}
    mine, its = pty.openpty()
    command = own_command(*arguments)
    with WarmProcess(command, stdin=its, stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(mine, 4096)
        meanwhile()
        os.write(mine, b"y\n")
        with suppress(OSError):
            while os.read(mine, 4096):
                pass
        os.close(mine)
        assert process.wait(timeout=120) == 0, shown


def test_a_renaming_waits_for_whoever_holds_a_lease(relay):
    partition = relay.partitions()[0]
    relay.client.hset(partition.lease, mapping={"token": "a", "until": 1 << 50, "owner": "x:1 y"})
    looks = []

    def looked(_seconds):
        looks.append(relay.client.hset(partition.lease, "token", "b"))

    await_holders(relay.client, relay.partitions(), looked)

    assert len(looks) == 1
    assert relay.client.hget(partition.lease, "token") == b"b"


def test_a_holder_that_stood_still_loses_its_lapsed_lease_to_a_renaming(relay):
    partition = relay.partitions()[0]
    relay.client.hset(partition.lease, mapping={"token": "a", "until": 1, "owner": "x:1 y"})

    await_holders(relay.client, relay.partitions())

    assert not relay.client.exists(partition.lease)


def test_a_lease_that_is_taken_away_leaves_the_times_of_ids_that_are_gone(relay):
    partition, *_ = relay.partitions()
    lapsed = {"token": "held", "until": 1, "length": 1, "owner": "nobody", "floor": 7}
    relay.client.hset(partition.lease, mapping=lapsed)

    await_holders(relay.client, [partition])

    assert relay.client.hgetall(partition.lease) == {b"floor": b"7"}


def forget_ledgers(relay, emails):
    """Let the ledger of these people have lapsed, as in an earlier version."""
    for partition in relay.partitions():
        for email in emails:
            relay.client.delete(partition.ledger(digest(email)))


def digest(email):
    from segrelay.worker.contract.keys import digest_of  # noqa: PLC0415

    return digest_of(f"email:{email}")


def test_who_is_named_is_moved_whether_the_ledger_is_known_or_not(inside, call, sandbox):
    forget_ledgers(inside, EVERYBODY[:18])

    told = rename(inside, call)
    drain_all(inside)

    counts = {name: told[name] for name in ("held", "named", "known", "unknown", "published")}
    assert counts == {"held": 2, "named": 20, "known": 2, "unknown": 18, "published": 20}
    assert members(sandbox, "gold") == set(EVERYBODY)
    assert members(sandbox, "vip") == set()


def test_who_is_named_leaves_a_retired_audience_whether_the_ledger_is_known_or_not(
    inside, call, sandbox
):
    forget_ledgers(inside, EVERYBODY[:18])

    command = ("audience", "retire", "vip", "--people", people(inside), "--yes", "--json")
    told = call(app, *command)
    drain_all(inside)

    assert told.exit_code == 0
    assert orjson.loads(told.stdout)["published"] == 20
    assert members(sandbox, "vip") == set()
