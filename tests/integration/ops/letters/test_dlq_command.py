"""`segrelay dlq` as a person calls it."""

import orjson
import pytest

from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import READS_ID, payload

pytestmark = pytest.mark.also_sealed(nightly=True)

MASK = "•••"


@pytest.fixture
def dead(relay, sandbox):
    """Three letters: two refused by Insider, one whose template fails; and one delivered."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(
        payload("ann@example.com", status="poisoned"),
        payload("ben@example.com", audience="gold", status="poisoned"),
        payload("eva@example.com", status="fine"),
    )
    relay.template("enter.jsonnet", "error 'no such field'")
    relay.deliver(payload("cleo@example.com", first_name="Cleo"))
    relay.template("enter.jsonnet", relay.shipped("enter.jsonnet"))
    assert relay.status()["dead"] == 3
    return relay


@pytest.fixture
def dlq(call):
    return lambda *arguments, stdin=None: call("dlq", *arguments, stdin=stdin)


def listed(dlq, *filters):
    return orjson.loads(dlq("list", "--json", *filters).stdout)


def emails(dlq, *filters):
    return {one["profile"]["email"] for one in listed(dlq, "--reveal", *filters)}


@pytest.mark.usefixtures("dead")
def test_letters_are_listed_the_newest_death_first_page_by_page_and_filters_narrow_the_list(dlq):
    dead_letters = listed(dlq)
    causes = orjson.loads(dlq("causes", "--json").stdout)
    refused = next(cause for cause in causes if cause["reason"] == "refused")

    assert [one["reason"] for one in dead_letters] == ["template_error", "refused", "refused"]
    assert {one["audience"] for one in dead_letters} == {"vip", "gold"}
    assert "3 shown, of 3 letters in all" in dlq("list").stdout
    assert "--page 2" not in dlq("list", "--limit", "3").stdout
    pages = [listed(dlq, "--limit", "2", "--page", page) for page in (1, 2)]
    assert pages == [dead_letters[:2], dead_letters[2:]]
    assert emails(dlq, "--audience", "gold") == {"ben@example.com"}
    assert emails(dlq, "--reason", "template_error") == {"cleo@example.com"}
    assert emails(dlq, "--cause", refused["cause"]) == {"ann@example.com", "ben@example.com"}
    assert emails(dlq, "--trigger", "vip-exit") == set()
    assert emails(dlq, "--until", "1h") == set()
    assert len(emails(dlq, "--since", "1h")) == 3
    [ben] = listed(dlq, "--audience", "gold")
    dlq("discard", ben["id"], "--audience", "vip", "--yes")
    assert len(emails(dlq)) == 3, "the one that is named is about gold"


@pytest.mark.usefixtures("dead")
def test_a_letter_tells_all_that_is_known_and_masks_profile_fields_unless_they_are_revealed(dlq):
    for dead_letter in listed(dlq):
        hidden = (
            dlq("show", dead_letter["id"]).stdout + dlq("show", dead_letter["id"], "--json").stdout
        )
        revealed = dlq("show", dead_letter["id"], "--reveal").stdout

        assert "example.com" not in hidden
        assert "Cleo" not in hidden
        assert MASK in hidden
        assert "example.com" in revealed
    assert "example.com" not in dlq("list").stdout + dlq("list", "--json").stdout
    dead_letter = next(one for one in listed(dlq) if one["reason"] == "refused")
    assert (dead_letter["status"], dead_letter["attempts"]) == (200, 1)
    assert len(dead_letter["template"]) == 12
    assert dead_letter["time"].endswith("Z")
    assert dead_letter["first_at_ms"] <= dead_letter["last_at_ms"]
    assert dead_letter["body"]["users"][0]["identifiers"]["email"] == MASK


@pytest.mark.usefixtures("dead")
def test_causes_group_and_count_name_the_line_of_the_template_and_a_sample_that_is_there(dlq):
    refused, failed = causes = orjson.loads(dlq("causes", "--json").stdout)

    assert [(one["reason"], one["count"]) for one in causes] == [
        ("refused", 2),
        ("template_error", 1),
    ]
    assert {one["sample"] for one in causes} <= {one["id"] for one in listed(dlq)}
    assert failed["location"].startswith("enter.jsonnet:")
    assert refused["location"] == "enter.jsonnet"
    assert failed["location"] in dlq("causes").stdout
    shown = dlq("show", failed["sample"]).stdout
    assert (
        f": template_error, cause {failed['cause']}\nmessage: {failed['location']}: no such"
        in shown
    )
    assert f"→ segrelay template render enter.jsonnet {failed['sample']} --explain\n" in shown
    dlq("discard", refused["sample"], "--yes")
    left = orjson.loads(dlq("causes", "--json").stdout)
    assert len(left) == 2
    assert {cause["sample"] for cause in left} == {one["id"] for one in listed(dlq)}


def test_a_replay_is_atomic_happens_once_and_is_delivered_through_the_backfill_lane(
    dead, dlq, sandbox
):
    sandbox.settings(poison="")
    ids = [one["id"] for one in listed(dlq)]

    answer = orjson.loads(dlq("replay", "--all", "--at-most", "3", "--yes", "--json").stdout)

    assert answer == {"replayed": 3, "left_out": {}}
    found = dead.status()
    assert (found["dead"], found["waiting"], found["dead_by_reason"]) == (0, 3, {})
    assert dead.streams() == {"backfill|vip-enter"}
    with pytest.raises(UsageWrong, match=f"There is no letter {ids[0]}"):
        dlq("replay", *ids, "--yes", "--json")
    for at in dead.partitions():
        assert dead.client.hlen(at.dead_letters) + dead.client.zcard(at.dead_letter_times) == 0
    assert dead.status()["waiting"] == 3

    dead.drain()

    assert dead.status()["delivered"] == 4
    assert listed(dlq) == []
    assert orjson.loads(dlq("causes", "--json").stdout) == []


def test_a_replay_that_something_newer_has_made_stale_is_not_sent(dead, dlq, call, sandbox):
    sandbox.settings(poison="")
    dead.deliver(payload("ann@example.com", direction="exit", minute=5))

    told = orjson.loads(call("why", "ann@example.com", "--json").stdout)
    dlq("replay", *told["letters"], "--yes")
    dead.drain()

    assert dead.status()["skipped_by_reason"] == {"superseded": 1}
    assert dead.status()["dead"] == 2


def test_what_the_ledger_has_forgotten_is_left_out_unless_forced(dead, dlq):
    dead.configure(late='late = "1s"\nledger_retention = "1m"')

    without = orjson.loads(dlq("replay", "--all", "--yes", "--json").stdout)
    found = orjson.loads(dlq("replay", "--all", "--force", "--yes", "--json").stdout)

    assert without == {"replayed": 0, "left_out": {"older_than_ledger": 3}}
    assert found["replayed"] == 3


def test_a_sandbox_run_says_what_would_pass_and_changes_nothing(dead, dlq):
    answer = orjson.loads(dlq("replay", "--dry-run", "--json").stdout)

    assert (answer["would_be_sent"], answer["would_be_dead"]) == (3, 0)
    assert dead.status()["dead"] == 3

    dead.template("enter.jsonnet", 'assert false : "not him"; {}')
    assert "3 would be skipped" in dlq("replay", "--dry-run").stdout
    dead.template("enter.jsonnet", "error 'still broken'")
    assert "3 would be dead" in dlq("replay", "--dry-run").stdout


def test_nothing_is_done_that_nobody_agreed_to_or_in_a_dry_run_and_what_is_discarded_is_counted(
    dead, dlq
):
    for command in ("replay", "discard"):
        with pytest.raises(UsageWrong, match=r"3 letters.*--yes agrees"):
            dlq(command, "--all")
        with pytest.raises(UsageWrong, match="It would be 3 letters, more than the 2 of --at-most"):
            dlq(command, "--all", "--at-most", "2", "--yes")
    with pytest.raises(UsageWrong, match="Name ids"):
        dlq("discard", "--yes")
    assert "2 letters would be" in dlq("discard", "--reason", "refused", "--dry-run").stdout
    assert dead.status()["dead"] == 3

    answer = dlq("discard", "--reason", "refused", "--at-most", "2", "--yes", "--json")

    assert orjson.loads(answer.stdout) == {"discarded": 2}
    found = dead.status()
    assert (found["dead"], found["discarded"], found["delivered"]) == (1, 2, 1)
    assert [one["reason"] for one in listed(dlq)] == ["template_error"]


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize("words", [("replay",), ("discard",)])
def test_an_id_that_is_not_there_is_an_error(dlq, words):
    with pytest.raises(
        UsageWrong, match="There is no letter nope; `segrelay dlq list` has the ids"
    ):
        dlq(*words, "nope", "--yes")

    with pytest.raises(UsageWrong, match=r"no letter insider\.0\.beef"):
        dlq("show", "insider.0.beef")
    one = listed(dlq)[0]["id"]
    done = dlq(*words, one, "nope", "--yes", "--json")
    assert next(iter(orjson.loads(done.stdout).values())) == 1
    assert "There is no letter nope" in done.stderr


def test_a_jobs_letter_goes_back_into_its_job(relay, dlq, sandbox):
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(payload("ann@example.com", status="poisoned"), job="load")
    assert relay.status()["jobs"]["load"]["dead"] == 1
    assert [len(listed(dlq, "--job", job)) for job in ("load", "other")] == [1, 0]
    assert [len(listed(dlq, "--destination", name)) for name in ("insider", "other")] == [1, 0]

    dlq("replay", "--all", "--yes")

    assert relay.status()["jobs"]["load"]["waiting"] == 1
    sandbox.settings(poison="")
    relay.drain()
    assert relay.status()["jobs"]["load"]["delivered"] == 1


def test_a_letter_that_cannot_be_read_is_listed_discarded_and_if_named_replayed_byte_for_byte(
    relay, dlq
):
    relay.publish(payload("ann@example.com"))
    relay.spoil_profiles()
    (before,) = relay.entries()
    relay.drain()
    (dead_letter,) = listed(dlq, "--reveal")

    left_out = orjson.loads(dlq("replay", "--all", "--yes", "--json").stdout)
    previewed = dlq("replay", dead_letter["id"], "--dry-run", "--json")
    replayed = orjson.loads(dlq("replay", dead_letter["id"], "--yes", "--json").stdout)

    assert (dead_letter["trigger"], bool(dead_letter["entry"])) == ("vip-enter", True)
    assert left_out == {"replayed": 0, "left_out": {"unreadable": 1}}
    assert previewed.exit_code == 0
    assert replayed == {"replayed": 1, "left_out": {}}
    assert relay.entries() == [before]
    relay.drain()
    dlq("discard", listed(dlq)[0]["id"], "--yes")
    found = relay.status()
    assert (found["discarded"], found["triggers"]["vip-enter"]["dead"]) == (1, 0)


def test_a_letter_that_died_for_want_of_an_id_is_delivered_once_the_id_is_known(dlq, call, relay):
    relay.template("enter.jsonnet", READS_ID)
    one = payload("ann@example.com")
    del one["data"]["segment_events"][0]["id"]
    relay.deliver(one)
    dead = orjson.loads(dlq("replay", "--dry-run", "--json").stdout)
    call("audience", "set", "0" * 32, "vip")

    known = orjson.loads(dlq("replay", "--dry-run", "--json").stdout)
    assert dlq("replay", "--all", "--yes").exit_code == 0
    relay.drain()

    assert (dead["would_be_dead"], known["would_be_sent"]) == (1, 1)
    assert (relay.status()["delivered"], relay.status()["dead"]) == (1, 0)
