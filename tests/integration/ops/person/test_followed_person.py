"""People whose stable id comes with another identity are renamed by themselves."""

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.ops.person.following import following_for
from segrelay.ops.state.identity_changes import IdentityChanges, read_renamed_people
from segrelay.ops.state.person import Names, read_records
from segrelay.ops.status.health import read_problems
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.people import MOST_CHANGES
from segrelay.worker.errors import OperationsMustAct
from tests.integration.ops.person.test_erased_person import everything, needles
from tests.integration.ops.relay import EXIT, payload

pytestmark = pytest.mark.also_sealed

OLD, NEW, THIRD = "ann@example.com", "ann.lee@example.com", "ann.third@example.com"
BOB = "bob@example.com"


@pytest.fixture
def relay(relay):
    relay.configure(EXIT, stable="_uid")
    return relay


def of_ann(email, audience="vip", direction="enter", minute=0, uid="u-ann"):
    return payload(email, audience, direction, minute, _uid=uid)


def step(relay):
    return following_for(relay.client, relay.settings, "insider").step()


def settle(relay, rounds=6):
    """Drain, and rename whom a drain found, until nothing waits."""
    for _ in range(rounds):
        relay.drain()
        step(relay)
        for partition in relay.partitions():
            relay.client.delete(partition.holds)
    relay.drain()
    assert relay.status()["waiting"] == 0


def told(relay):
    return read_renamed_people(relay.client, relay.partitions(), ["insider"])["insider"]


def ledger_of(client, email):
    partition = PartitionKeys("insider", partition_of(f"email:{email}", 4))
    (record,) = read_records(client, partition, [digest_of(f"email:{email}")])
    return {(line.audience, line.direction.value) for line in Names(client).lines(record)}


def test_somebody_who_comes_with_another_address_is_renamed(relay, at_insider):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1))
    settle(relay)

    assert at_insider() == {NEW: ["gold", "vip"]}
    assert ledger_of(relay.client, NEW) == {("vip", "enter"), ("gold", "enter")}
    assert ledger_of(relay.client, OLD) == set()
    assert (told(relay).renamed, told(relay).refused, told(relay).waiting) == (1, 0, 0)


def test_until_then_the_events_of_the_new_address_wait(relay, at_insider):
    relay.publish(of_ann(OLD))
    relay.drain()

    relay.publish(of_ann(NEW, "gold", minute=1), payload(BOB))
    relay.drain()

    assert at_insider() == {OLD: ["vip"], BOB: ["vip"]}
    assert relay.status()["waiting"] == 1
    assert told(relay).waiting == 1


def test_a_late_event_under_the_old_address_goes_to_the_new_person(relay, at_insider):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=9))
    settle(relay)

    relay.publish(of_ann(OLD, "silver", minute=5), payload(OLD, "bronze", minute=6))
    settle(relay)

    assert at_insider() == {NEW: ["bronze", "gold", "silver", "vip"]}
    assert told(relay).renamed == 1


def test_a_newer_event_under_the_old_address_renames_back(relay, at_insider):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1))
    settle(relay)

    relay.publish(of_ann(OLD, "silver", minute=2))
    settle(relay)
    relay.publish(of_ann(NEW, "bronze", minute=1))
    settle(relay)

    assert at_insider() == {OLD: ["bronze", "gold", "silver", "vip"]}
    assert told(relay).renamed == 2


def test_events_out_of_order_end_at_the_newest_address(relay, at_insider):
    relay.publish(of_ann(NEW, "gold", minute=9))
    relay.drain()

    relay.publish(of_ann(OLD, "silver", minute=5), of_ann(THIRD, "bronze", minute=2))
    settle(relay)

    assert at_insider() == {NEW: ["bronze", "gold", "silver"]}
    assert ledger_of(relay.client, OLD) == ledger_of(relay.client, THIRD) == set()


def test_somebody_whose_new_address_is_taken_goes_on_as_another_person(relay, at_insider):
    relay.publish(of_ann(OLD), payload(NEW, "gold"))
    relay.drain()

    relay.publish(of_ann(NEW, "silver", minute=1))
    settle(relay)
    relay.publish(of_ann(NEW, "bronze", minute=2), of_ann(OLD, "bronze", minute=1))
    settle(relay)

    assert at_insider() == {OLD: ["bronze", "vip"], NEW: ["bronze", "gold", "silver"]}
    assert (told(relay).renamed, told(relay).refused) == (0, 1)
    (problem,) = problems(relay)
    assert (problem.severity, problem.subject) == ("attention", "insider")


def problems(relay):
    found = read_problems(relay.client, relay.settings)
    return [one for one in found if one.name == "not_renamed"]


def test_nobody_gets_an_address_that_another_stable_id_has(relay, at_insider):
    """Insider does not know Ann, so it would have nothing to refuse."""
    relay.publish(of_ann(OLD, direction="exit"), of_ann(BOB, uid="u-bob"))
    relay.drain()

    relay.publish(of_ann(BOB, "gold", minute=2))
    settle(relay)

    assert at_insider() == {BOB: ["gold", "vip"]}
    assert ledger_of(relay.client, OLD) == {("vip", "exit")}
    assert told(relay).refused == 1


def test_two_people_who_exchange_their_addresses_are_not_merged(relay, at_insider):
    relay.publish(of_ann(OLD), of_ann(BOB, uid="u-bob"))
    relay.drain()

    relay.publish(of_ann(BOB, "gold", minute=1), of_ann(OLD, "silver", minute=1, uid="u-bob"))
    settle(relay)

    assert at_insider() == {OLD: ["silver", "vip"], BOB: ["gold", "vip"]}
    assert (told(relay).renamed, told(relay).refused) == (0, 2)


def test_an_address_that_is_handed_over_goes_with_nobody(relay, at_insider):
    """Ann leaves her address, and Bob gets it; what was hers stays hers."""
    relay.publish(of_ann(OLD), of_ann(BOB, "gold", uid="u-bob"))
    relay.drain()

    relay.publish(of_ann(OLD, "silver", minute=3, uid="u-bob"), of_ann(NEW, "bronze", minute=2))
    settle(relay)
    relay.publish(of_ann(OLD, "late", minute=1))
    settle(relay)

    assert at_insider() == {NEW: ["bronze", "late", "vip"], OLD: ["gold", "silver"]}
    assert (told(relay).renamed, told(relay).refused) == (2, 0)


def test_a_stable_id_that_changes_all_the_time_is_not_followed(relay):
    for number in range(MOST_CHANGES + 3):
        relay.publish(of_ann(f"p{number}@example.com", minute=number))
        settle(relay, 2)

    assert told(relay).renamed == MOST_CHANGES
    assert told(relay).refused == 2


def test_a_value_that_names_nobody_is_no_stable_id(relay, at_insider):
    for uid in ("", "null", "0", None, True, {"a": 1}):
        relay.publish(of_ann(OLD, uid=uid), of_ann(NEW, minute=1, uid=uid))
    settle(relay)

    assert at_insider() == {OLD: ["vip"], NEW: ["vip"]}
    assert told(relay).renamed == 0


class Frozen(IdentityChanges):
    """Reads the changes, and stands still until somebody has gone there and back."""

    meanwhile = staticmethod(lambda: None)

    def waiting(self, most):
        found = super().waiting(most)
        self.meanwhile()
        return found


def test_a_step_that_stood_still_renames_nobody_again(relay, at_insider):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1))
    relay.drain()

    def there_and_back():
        relay.client.hdel("{changes:insider}", "lock", "until")
        settle(relay)
        relay.publish(of_ann(OLD, "silver", minute=2))
        settle(relay)

    steps = following_for(relay.client, relay.settings, "insider")
    frozen = type("FrozenOnce", (Frozen,), {"meanwhile": staticmethod(there_and_back)})
    steps.changes = frozen(relay.client, relay.settings.redis, "insider")
    assert not steps.step().taken
    settle(relay)
    relay.publish(of_ann(NEW, "late", minute=1))
    settle(relay)

    assert at_insider() == {OLD: ["gold", "late", "silver", "vip"]}
    assert told(relay).renamed == 2


def test_people_whom_a_person_renamed_are_followed_from_there(relay, call, at_insider):
    relay.publish(of_ann(OLD))
    relay.drain()
    assert call(app, "rename", "person", OLD, NEW).exit_code == 0
    relay.publish(of_ann(OLD, "gold", minute=1))
    settle(relay)
    assert at_insider() == {NEW: ["gold", "vip"]}

    relay.publish(of_ann(THIRD, "silver", minute=2))
    settle(relay)

    assert at_insider() == {THIRD: ["gold", "silver", "vip"]}
    assert told(relay).renamed == 1


def test_why_and_the_audit_tell_of_it_without_anybodys_identity(relay, call):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1))
    settle(relay)

    told = orjson.loads(call(app, "why", NEW, "--json").stdout)
    (renamed,) = [one for one in told["timeline"] if one["what"] == "renamed"]
    acts = call(app, "audit", "--json").stdout

    assert (renamed["destination"], renamed["trigger"]) == ("insider", "vip-enter")
    assert "rename person" in acts
    assert "example.com" not in acts
    assert "renamed by themselves 1" in call(app, "status").stdout


def test_nothing_of_a_stable_id_is_left_of_somebody_who_is_erased(relay, call):
    relay.publish(of_ann(OLD), of_ann(BOB, uid="u-bob"))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1), of_ann(BOB, "gold", minute=5))
    settle(relay)
    relay.publish(of_ann(OLD, "late", minute=0))
    settle(relay)

    done = call(app, "erase", NEW, "--yes", "--json")

    assert done.exit_code == 0, done.output
    assert orjson.loads(done.stdout)["erased"]["stable ids"] == 1
    for held in everything(relay.client):
        assert not any(needle in held for needle in needles(OLD, NEW)), held


def test_somebody_who_is_about_to_be_renamed_is_not_erased_in_part(relay, call):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1))
    relay.drain()

    with pytest.raises(OperationsMustAct, match="is being renamed"):
        call(app, "erase", OLD, "--yes")

    assert ledger_of(relay.client, OLD) == {("vip", "enter")}
    assert relay.status()["waiting"] == 1


def test_while_insider_takes_no_renaming_the_events_wait_and_status_says_why(
    relay, sandbox, at_insider
):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1))
    relay.drain()
    sandbox.settings(credentials_status=401)

    assert step(relay).wait_seconds > 0
    found = read_problems(relay.client, relay.settings)
    (problem,) = [one for one in found if one.name == "renaming_waits"]
    assert "refuses the authorization" in problem.message

    sandbox.settings(credentials_status=0)
    settle(relay)
    assert at_insider() == {NEW: ["gold", "vip"]}
    assert told(relay).problem == ""


def test_a_destination_that_is_paused_is_not_asked_to_rename(relay, call, at_insider):
    relay.publish(of_ann(OLD))
    relay.drain()
    relay.publish(of_ann(NEW, "gold", minute=1))
    relay.drain()
    assert call(app, "pause", "insider").exit_code == 0

    assert step(relay).line == "the destination is paused"

    assert at_insider() == {OLD: ["vip"]}
