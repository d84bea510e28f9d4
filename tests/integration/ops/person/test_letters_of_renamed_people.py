"""Dead letters of people who get another identity: they follow, and are never in two places."""

import orjson
import pytest

from segrelay.ops.main import app as main
from segrelay.ops.person.renaming import IdentityChange, PersonMove, move_dead_letters
from segrelay.worker.batch.delivery import unseal_dead_letter
from segrelay.worker.contract.keys import digest_of, partition_of
from segrelay.worker.contract.people import Forward, Moving
from segrelay.worker.errors import OperationsMustAct
from tests.integration.ops.outcomes.world import counted, counts_of, rows_of
from tests.integration.ops.person.test_renamed_person import (
    NEW,
    OLD,
    KilledError,
    ledger_of,
    partition_at,
    rename,
)
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed


def test_letters_of_somebody_who_is_erased_meanwhile_come_nowhere(call, with_a_dead_letter):
    """The process that renames stands still before a letter arrives, and the person is erased."""
    relay = with_a_dead_letter
    assert dead_letters_taken_and_die(relay, NEW, MortalClient(relay.client, before="hkeys"))
    (dead_letter,) = [
        text
        for partition in relay.partitions()
        for text in relay.client.hvals(partition.dead_letters_leaving)
    ]
    call(main, "erase", OLD, "--yes")
    relay.client.hset(
        partition_at(OLD).dead_letters_leaving, orjson.loads(dead_letter)["id"], dead_letter
    )

    arriving = Forward(Moving.ARRIVING, digest_of(f"email:{OLD}").hex()).dumps()
    change = IdentityChange(f"email:{OLD}", f"email:{NEW}")
    move = PersonMove(change, partition_at(OLD), partition_at(NEW), arriving=arriving)
    with pytest.raises(OperationsMustAct, match="run this again"):
        move_dead_letters(relay.client, [move])

    assert kept_dead_letters(relay) == []


@pytest.fixture
def with_a_dead_letter(relay, sandbox):
    """An event of the former identity died; it would be delivered by now."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(payload(OLD, status="poisoned"))
    relay.drain()
    sandbox.settings(poison="", poison_status=400)
    assert relay.status()["dead"] == 1
    return relay


@pytest.mark.parametrize("before", ["hkeys", "hdel"])
def test_letters_that_are_erased_on_their_way_are_counted_and_recorded_as_discarded(
    relay, sandbox, call, tmp_path, before
):
    """The renaming dies once a letter has left, or has arrived, and then the person is erased."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(payload(OLD, status="poisoned"), job="load")
    relay.drain()
    begun = Forward(Moving.BEGUN, f"email:{NEW}", partition_at(NEW).number, 5).dumps()
    relay.client.hset(partition_at(OLD).forwards, digest_of(f"email:{OLD}").hex(), begun)
    assert dead_letters_taken_and_die(relay, NEW, MortalClient(relay.client, before=before))

    receipt = orjson.loads(call(main, "erase", OLD, "--yes", "--json").stdout)

    call(main, "outcomes", "export", tmp_path / "all.ndjson")
    status = relay.status()
    assert (status["accepted"], status["discarded"], status["dead"]) == (1, 1, 0)
    assert status["jobs"]["load"]["discarded"] == 1
    assert counted(rows_of(tmp_path / "all.ndjson")) == counts_of(status)
    assert receipt["erased"]["letters"] == 1


def dead_letters(call, *arguments):
    return orjson.loads(call(main, "dlq", "list", "--json", *arguments).stdout)


def test_letters_move_to_the_new_identity(call, with_a_dead_letter):
    rename(call, OLD, "b@example.com")
    rename(call, "b@example.com", NEW)

    (dead_letter,) = dead_letters(call, "--profile", NEW)
    told = orjson.loads(call(main, "why", NEW, "--json").stdout)

    assert told["letters"] == [dead_letter["id"]]
    assert dead_letters(call, "--profile", "else@example.com") == []
    (kept,) = kept_dead_letters(with_a_dead_letter)
    assert kept["partition"] == partition_at(NEW).number
    assert kept["header"][1] == digest_of(f"email:{NEW}").hex()
    assert kept["profile"]["email"] == NEW
    causes = orjson.loads(call(main, "dlq", "causes", "--json").stdout)
    assert [cause["count"] for cause in causes] == [1]


def kept_dead_letters(relay):
    """Return the letters as they are in their partitions; each names its own."""
    found = [
        (partition, orjson.loads(unseal_dead_letter(text)))
        for partition in relay.partitions()
        for text in relay.client.hvals(partition.dead_letters)
    ]
    for partition, dead_letter in found:
        assert dead_letter["id"].startswith(f"{partition.destination}.{partition.number}.")
        assert dead_letter["partition"] == partition.number
        assert relay.client.zscore(partition.dead_letter_times, dead_letter["id"])
    return [dead_letter for _, dead_letter in found]


def in_partition(number):
    emails = (f"p{n}@example.com" for n in range(100))
    return next(each for each in emails if partition_of(f"email:{each}", 4) == number)


def dead_letters_taken_and_die(relay, new, client):
    """Move letters alone; return whether the client has died."""
    left, key = partition_at(OLD), f"email:{new}"
    digest = digest_of(f"email:{OLD}")
    arriving = Forward(Moving.ARRIVING, digest.hex()).dumps()
    relay.client.hset(partition_at(new).forwards, digest_of(key).hex(), arriving)
    change = IdentityChange(f"email:{OLD}", key)
    move = PersonMove(change, left, partition_at(new), arriving=arriving)
    try:
        move_dead_letters(client, [move])
    except KilledError:
        return True
    finally:
        for partition in relay.partitions():
            relay.client.delete(partition.lease)
    return False


class MortalClient:
    """A client of a command that is killed before a certain one of its calls."""

    def __init__(self, client, calls=1_000, before=""):
        self.client, self.calls, self.before = client, calls, before

    def __getattr__(self, name):
        if not self.calls or name == self.before:
            raise KilledError
        self.calls -= 1
        return getattr(self.client, name)


def test_a_letter_that_is_replayed_while_it_is_moved_is_delivered_once(
    call, with_a_dead_letter, at_insider
):
    """The command dies once the letter has arrived; it is replayed, and the command repeated."""
    relay = with_a_dead_letter
    assert dead_letters_taken_and_die(relay, NEW, MortalClient(relay.client, before="hdel"))
    (dead_letter,) = kept_dead_letters(relay)
    assert dead_letter["profile"]["email"] == NEW
    call(main, "dlq", "replay", "--all", "--yes")

    dead_letters_taken_and_die(relay, NEW, relay.client)
    relay.client.delete(partition_at(NEW).forwards)
    relay.drain()

    assert kept_dead_letters(relay) == []
    assert relay.status()["accepted"] == 1
    assert at_insider() == {NEW: ["vip"]}


def test_a_letter_that_cannot_be_read_stays_and_is_found(call, relay):
    relay.publish(payload(OLD))
    relay.spoil_profiles()
    relay.drain()
    (before,) = kept_dead_letters(relay)

    rename(call, OLD, NEW)

    assert kept_dead_letters(relay) == [before]
    assert [dead_letter["id"] for dead_letter in dead_letters(call, "--profile", NEW)] == [
        before["id"]
    ]


@pytest.mark.usefixtures("with_a_dead_letter")
def test_letters_of_somebody_whom_insider_refuses_stay_theirs(call, relay):
    relay.publish(payload(NEW))
    relay.publish(payload(OLD, "gold", minute=1))
    relay.drain()
    rename(call, OLD, NEW, code=1)

    assert dead_letters(call, "--profile", NEW) == []
    assert len(dead_letters(call, "--profile", OLD)) == 1


def test_a_replay_goes_to_the_new_identity(call, with_a_dead_letter, at_insider):
    rename(call, OLD, NEW)

    assert call(main, "dlq", "replay", "--profile", NEW, "--yes").exit_code == 0
    with_a_dead_letter.drain()

    assert at_insider() == {NEW: ["vip"]}
    assert ledger_of(with_a_dead_letter.client, NEW) == {("vip", "enter")}
    assert dead_letters(call) == []
