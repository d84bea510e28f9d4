"""People who get another identity: Insider and the ledger agree, and late events follow them."""

import re

import orjson
import pytest

from segrelay.ops.insider.reader import RENAMES_A_MINUTE, InsiderIdentities
from segrelay.ops.main import app
from segrelay.ops.person.renaming import IdentityChange, PersonRenaming
from segrelay.ops.state.person import Names, read_records
from segrelay.ops.status.health import read_problems
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.people import Forward, Moving
from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed

OLD, NEW = "ann@example.com", "ann.lee@example.com"


def partition_at(email):
    return PartitionKeys("insider", partition_of(f"email:{email}", 4))


def ledger_of(client, email):
    (record,) = read_records(client, partition_at(email), [digest_of(f"email:{email}")])
    return {(line.audience, line.direction.value) for line in Names(client).lines(record)}


def rename(call, *arguments, code=0):
    result = call(app, "rename", "person", *arguments, "--json")
    assert result.exit_code == code, result.output
    return orjson.loads(result.stdout)


def test_insider_and_the_ledger_follow_a_person(call, relay, at_insider):
    relay.publish(payload(OLD))
    relay.drain()

    found = rename(call, OLD, NEW)

    assert (found["renamed"], found["refused"]) == (1, 0)
    assert OLD not in str(found)
    assert at_insider() == {NEW: ["vip"]}
    assert ledger_of(relay.client, NEW) == {("vip", "enter")}
    assert ledger_of(relay.client, OLD) == set()


def test_what_waits_and_what_comes_late_goes_to_the_new_identity(call, relay, at_insider):
    relay.publish(payload(OLD))
    relay.drain()
    relay.publish(payload(OLD, "gold", minute=1))
    rename(call, OLD, NEW)
    relay.publish(payload(OLD, direction="exit", minute=2))

    relay.drain()

    assert at_insider() == {NEW: ["gold"]}
    assert ledger_of(relay.client, OLD) == set()
    assert relay.status()["waiting"] == 0


def test_an_older_event_under_the_former_identity_is_superseded(call, relay, at_insider):
    relay.publish(payload(OLD, minute=5))
    relay.drain()
    rename(call, OLD, NEW)
    relay.publish(payload(OLD, direction="exit", minute=1))

    relay.drain()

    assert at_insider() == {NEW: ["vip"]}
    assert relay.status()["skipped_by_reason"] == {"superseded": 1}


def test_a_second_command_finds_it_done(call, relay):
    relay.publish(payload(OLD))
    relay.drain()
    rename(call, OLD, NEW)

    assert rename(call, OLD, NEW)["already"] == 1


def test_whom_insider_refuses_stays_as_they_were(call, relay, at_insider):
    relay.publish(payload(OLD), payload(NEW, "gold"))
    relay.drain()

    found = rename(call, OLD, NEW, code=1)
    relay.publish(payload(OLD, "gold", minute=1))
    relay.drain()

    assert "belongs to another user" in found["changes"][0]["message"]
    assert at_insider() == {OLD: ["gold", "vip"], NEW: ["gold"]}
    assert not any(relay.client.exists(partition.forwards) for partition in relay.partitions())


def test_somebody_whom_insider_does_not_know_is_moved_all_the_same(call, relay, at_insider):
    relay.publish(payload(OLD))

    assert rename(call, OLD, NEW)["renamed"] == 1
    relay.drain()

    assert at_insider() == {NEW: ["vip"]}


def test_a_person_can_be_renamed_back(call, relay, at_insider):
    relay.publish(payload(OLD))
    relay.drain()
    rename(call, OLD, NEW)
    rename(call, NEW, OLD)
    relay.publish(payload(NEW, "gold", minute=1), payload(OLD, "gold", minute=2))

    relay.drain()

    assert at_insider() == {OLD: ["gold", "vip"]}
    assert ledger_of(relay.client, NEW) == set()


def test_a_chain_of_a_file_ends_at_the_last_identity(call, relay, at_insider, tmp_path):
    relay.publish(payload(OLD))
    relay.drain()
    (tmp_path / "changes.csv").write_text(f"old,new\n{OLD},b@example.com\nB@example.com,{NEW}\n")

    found = rename(call, "--file", tmp_path / "changes.csv")
    relay.publish(payload(OLD, "gold", minute=1))
    relay.drain()

    assert found["renamed"] == 2
    assert at_insider() == {NEW: ["gold", "vip"]}
    assert relay.status()["waiting"] == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b"b@example.com\n", "csv:2: there have to be two columns"),
        (b"b@example.com,c@example.com,d@example.com\n", "csv:2: there have to be two columns"),
        (b"b@example.com,N/A\n", "Line 2: the new identity is nothing that Insider takes"),
        (b"b@example.com,not an address\n", "Line 2: the new identity is nothing"),
        (b"b@example.com, \n", "Line 2: This can't be anybody's identity"),
        (b"b@example.com,B@example.com\n", "Line 2: the former identity and the new one"),
        (b'"b@example.com,c@example.com\n', "csv:2: there have to be two columns"),
        (b"\xff\xfe,c@example.com\n", "can't be read"),
        (b"b@example.com,\x00\n", "Line 2"),
    ],
)
def test_a_file_with_a_bad_row_renames_nobody(call, relay, at_insider, tmp_path, *, rows, said):
    relay.publish(payload(OLD))
    relay.drain()
    (tmp_path / "changes.csv").write_bytes(f"{OLD},{NEW}\n".encode() + rows)

    with pytest.raises(UsageWrong, match=re.escape(said)) as refused:
        call(app, "rename", "person", "--file", tmp_path / "changes.csv")

    assert "@" not in str(refused.value)
    assert at_insider() == {OLD: ["vip"]}
    assert not any(relay.client.exists(partition.forwards) for partition in relay.partitions())


def test_health_tells_of_a_renaming_that_was_stopped_until_it_is_given_again(call, relay):
    relay.publish(payload(OLD))
    relay.drain()
    rename_and_die(relay, "_merge", False)
    assert problems(relay, later_ms=60_000) == []
    (problem,) = problems(relay, later_ms=120_000)
    assert (problem.severity, "rename person" in problem.command) == ("attention", True)

    rename(call, OLD, NEW)

    assert problems(relay, later_ms=240_000) == []


class KilledError(Exception):
    """In the place of a kill."""


def rename_and_die(relay, stage, after, new=NEW, old=OLD):
    """Rename, and end before a step is done, or right after it."""
    own = getattr(PersonRenaming, stage)

    def dying(self, *arguments, **options):
        if after:
            own(self, *arguments, **options)
        raise KilledError

    mortal = type("Mortal", (PersonRenaming,), {stage: dying})
    destination = relay.settings.destinations["insider"]
    with InsiderIdentities(relay.settings, destination, a_minute=RENAMES_A_MINUTE) as insider:
        renaming = mortal(
            relay.client, relay.settings, {"insider": insider}, lambda key: {"email": key[6:]}
        )
        with pytest.raises(KilledError):
            renaming.run([IdentityChange(f"email:{old}", f"email:{new}")])


def wait_out_holds(relay):
    for partition in relay.partitions():
        relay.client.delete(partition.holds)
    relay.close()


def test_nothing_is_delivered_while_a_person_is_moved(relay, at_insider):
    relay.publish(payload(OLD))
    relay.drain()
    rename_and_die(relay, "_ask", False)

    relay.publish(payload(OLD, "gold", minute=1), payload(NEW, "silver", minute=1))
    relay.publish(payload("else@example.com"))
    relay.drain()

    assert at_insider() == {OLD: ["vip"], "else@example.com": ["vip"]}
    assert relay.status()["waiting"] == 2


def test_why_tells_of_the_person_under_the_new_identity(call, relay):
    relay.publish(payload(OLD))
    relay.drain()
    rename(call, OLD, NEW)

    assert "vip-enter" in call_why(call, NEW)


def test_why_tells_what_waits_under_the_former_identity(call, relay):
    relay.publish(payload(OLD))
    relay.drain()
    rename(call, OLD, NEW)
    relay.publish(payload(OLD, "gold", minute=1))

    for who in (NEW, OLD):
        told = orjson.loads(call(app, "why", who, "--json").stdout)
        (waits,) = told["waiting"]
        assert waits["audience"] == "gold"
        assert "came under a former identity" in waits["detail"]
        assert [line["audience"] for line in told["ledger"]] == ["vip"]


def test_why_tells_of_a_renaming_that_was_stopped(call, relay):
    relay.publish(payload(OLD))
    relay.drain()
    rename_and_die(relay, "_ask", False)
    relay.publish(payload(OLD, "gold", minute=1), payload(NEW, "gold", minute=1))

    for who in (NEW, OLD):
        (waits,) = orjson.loads(call(app, "why", who, "--json").stdout)["waiting"]
        assert "is being renamed" in waits["detail"]


def call_why(call, who):
    return call(app, "why", who).stdout


def test_the_record_of_somebody_who_was_renamed_names_the_new_identity_alone(call, relay):
    relay.publish(payload(OLD))
    relay.drain()
    rename(call, OLD, NEW)

    records = [
        Forward.loads(text)
        for partition in relay.partitions()
        for text in relay.client.hvals(partition.forwards)
    ]

    assert [(one.moving, one.to) for one in records] == [(Moving.DONE, f"email:{NEW}")]


def problems(relay, *, later_ms):
    """Return the problems as they are after some time in which the command is not seen."""
    for digest, seen_ms in relay.client.zrange(keys.RENAMING, 0, -1, withscores=True):
        relay.client.zadd(keys.RENAMING, {digest: seen_ms - later_ms})
    found = read_problems(relay.client, relay.settings)
    return [one for one in found if one.name == "rename_stopped"]


def test_a_renaming_of_somebody_whom_insider_refuses_has_ended(call, relay):
    relay.publish(payload(OLD), payload(NEW))
    relay.drain()
    rename(call, OLD, NEW, code=1)

    assert not relay.client.exists(keys.RENAMING)


def test_a_command_that_waits_tells_that_it_runs(relay):
    relay.publish(payload(OLD))
    relay.drain()
    seen = []

    class Watched(PersonRenaming):
        def _ask(self, move):
            relay.client.zadd(keys.RENAMING, {move.old_digest.hex(): 1})
            self._told_at = 0.0
            self._wait(0)
            seen.append(relay.client.zscore(keys.RENAMING, move.old_digest.hex()))
            super()._ask(move)

    destination = relay.settings.destinations["insider"]
    with InsiderIdentities(relay.settings, destination, a_minute=RENAMES_A_MINUTE) as insider:
        Watched(
            relay.client, relay.settings, {"insider": insider}, lambda key: {"email": key[6:]}
        ).run([IdentityChange(f"email:{OLD}", f"email:{NEW}")])

    assert seen[0] > 1
