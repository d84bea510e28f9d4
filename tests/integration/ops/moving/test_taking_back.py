"""`segrelay discard` and `segrelay rename trigger` as a person calls them."""

import time
from contextlib import closing

import orjson
import pytest

from segrelay.ops.kept import Filter
from segrelay.ops.main import app
from segrelay.ops.state.waiting import Choice, find_streams
from segrelay.ops.waiting import Waiting
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.adapters.redis.presence import RedisPresence
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.errors import OperationsMustAct, UsageWrong
from tests.integration.ops.relay import ENTER, EXIT, payload


@pytest.fixture
def waiting(relay):
    """Five deliveries: two of a job, of two audiences and two triggers."""
    relay.publish(
        payload("ann@example.com", audience="gold"), payload("ben@example.com"), job="load"
    )
    relay.publish(
        payload("ann@example.com", minute=1),
        payload("cleo@example.com", audience="gold", minute=1),
        payload("dan@example.com", direction="exit"),
    )
    return relay


@pytest.fixture
def discard(call):
    def run(*arguments):
        result = call(app, "discard", *arguments, "--yes", "--json")
        return orjson.loads(result.stdout)["discarded"]

    return run


def test_a_job_is_taken_back_whole(waiting, discard):
    assert discard("--job", "load") == 2

    found = waiting.status()
    assert (found["discarded"], found["waiting"]) == (2, 3)
    assert found["jobs"]["load"]["discarded"] == 2
    assert waiting.streams() == {"live|vip-enter", "live|vip-exit"}


def test_nothing_to_take_back_is_no_failure_and_no_act(relay, discard):
    assert discard("--trigger", "vip-enter") == 0
    assert list(read_acts(relay.client)) == []


def test_a_triggers_deliveries_are_taken_back_from_all_lanes(waiting, discard):
    assert discard("--trigger", "vip-enter") == 4

    assert waiting.streams() == {"live|vip-exit"}
    assert waiting.status()["triggers"]["vip-enter"]["discarded"] == 4


def test_an_audience_is_taken_back_and_others_stay(waiting, discard):
    assert discard("--audience", "gold") == 2
    assert discard("--audience", "gold") == 0

    found = waiting.status()
    assert (found["discarded"], found["waiting"]) == (2, 3)
    waiting.drain()
    assert waiting.status()["delivered"] == 3


@pytest.mark.usefixtures("waiting")
def test_options_narrow_each_other(discard):
    assert discard("--job", "load", "--audience", "gold") == 1
    assert discard("--job", "load", "--trigger", "vip-exit") == 0


def test_more_than_one_step_is_taken_back(relay, discard):
    people = [payload(f"p{number}@example.com", audience="gold") for number in range(2_500)]
    relay.publish(*people)
    relay.publish(payload("ann@example.com"))

    assert discard("--audience", "gold") == 2_500
    assert relay.status()["waiting"] == 1


def test_what_was_settled_meanwhile_is_not_counted(waiting, discard):
    waiting.drain()

    assert discard("--trigger", "vip-enter") == 0
    assert waiting.status()["delivered"] == 5


def test_a_dry_run_of_discard_takes_nothing_back(waiting, call):
    answer = orjson.loads(call(app, "discard", "--job", "load", "--dry-run", "--json").stdout)

    assert answer == {"would_be_discarded": 2}
    assert waiting.status()["waiting"] == 5


def test_something_has_to_be_named_and_agreed(waiting, call):
    with pytest.raises(UsageWrong, match="Name --job"):
        call(app, "discard", "--yes")
    with pytest.raises(UsageWrong, match="Discard 2 waiting deliveries"):
        call(app, "discard", "--job", "load")
    assert waiting.status()["waiting"] == 5


def test_nothing_is_taken_back_if_it_is_more_than_was_agreed(waiting, call, discard):
    with pytest.raises(UsageWrong, match="It would be 4 waiting deliveries, more than the 3 of"):
        call(app, "discard", "--trigger", "vip-enter", "--at-most", "3", "--yes")
    assert waiting.status()["waiting"] == 5

    assert discard("--trigger", "vip-enter", "--at-most", "4") == 4


@pytest.mark.parametrize("wanted", [Filter(trigger="vip-enter"), Filter(audience="gold")])
def test_what_comes_after_the_count_is_not_taken_back(waiting, wanted):
    work = Waiting(waiting.client, waiting.settings).discard(wanted)
    waiting.publish(*(payload(f"late{n}@example.com", audience="gold") for n in range(30)))

    assert sum(work.steps()) == work.count
    assert sum(work.steps()) == 0

    found = waiting.status()
    assert (found["discarded"], found["waiting"]) == (work.count, 35 - work.count)
    waiting.drain()
    assert waiting.status()["delivered"] == 35 - work.count


def moved(call, *arguments):
    return orjson.loads(call(app, "rename", "trigger", *arguments, "--yes", "--json").stdout)


RENAMED = ENTER.replace("vip-enter", "renamed")


def test_what_a_lost_trigger_left_moves_with_its_count(waiting, call):
    waiting.configure(EXIT, triggers=RENAMED)
    assert waiting.status()["orphaned"] == 4

    assert moved(call, "vip-enter", "renamed") == {"moved": 4, "left": 0}

    found = waiting.status()
    assert found["orphaned"] == 0
    assert found["triggers"]["renamed"]["accepted"] == 4
    assert found["triggers"]["vip-enter"]["accepted"] == 0
    assert found["jobs"]["load"]["waiting"] == 2
    waiting.drain()
    assert waiting.status()["delivered"] == 5


def test_a_lost_destination_is_left_with_the_trigger(waiting, call):
    waiting.configure(EXIT.replace('"insider"', '"other"'), other=True)
    assert waiting.status()["orphans"] == {"vip-exit": 1}

    assert moved(call, "vip-exit", "vip-exit") == {"moved": 1, "left": 0}

    found = waiting.status()
    assert found["orphaned"] == 0
    assert found["accepted"] == 5


def test_events_of_another_direction_stay(waiting, call):
    waiting.configure()

    assert moved(call, "vip-exit", "vip-enter") == {"moved": 0, "left": 1}
    assert waiting.status()["orphaned"] == 1


def test_only_what_nobody_delivers_is_moved(waiting, call):
    with pytest.raises(UsageWrong, match="vip-enter is configured"):
        moved(call, "vip-enter", "vip-exit")
    with pytest.raises(UsageWrong, match="no trigger nowhere"):
        moved(call, "vip-enter", "nowhere")
    assert waiting.status()["waiting"] == 5


def appears(relay, config):
    presence = RedisPresence(relay.client, config, stopped=dict, clock=time.monotonic)
    presence.announce()
    return presence


def test_nothing_moves_beside_a_worker_with_the_old_configuration(waiting, call):
    old = appears(waiting, waiting.settings.fingerprint)
    waiting.configure(EXIT, triggers=RENAMED)

    with pytest.raises(OperationsMustAct, match=r":\d+ .*another configuration"):
        moved(call, "vip-enter", "renamed")

    assert waiting.status()["orphaned"] == 4
    old.leave()
    appears(waiting, waiting.settings.fingerprint)
    assert moved(call, "vip-enter", "renamed")["moved"] == 4


def test_nothing_moves_from_a_partition_that_an_unseen_worker_drains(waiting, call):
    old = waiting.settings.fingerprint
    waiting.configure(EXIT, triggers=RENAMED)
    streams = find_streams(waiting.client, waiting.partitions(), Choice(trigger="vip-enter"))
    partition = streams[0].partition
    far = 2 * round(time.time() * 1000)
    waiting.client.hset(
        partition.lease, mapping={"token": "t", "until": far, "owner": f"elsewhere:17 {old}"}
    )

    with pytest.raises(OperationsMustAct, match="elsewhere:17"):
        moved(call, "vip-enter", "renamed")

    waiting.client.hset(partition.lease, "owner", f"here:18 {waiting.settings.fingerprint}")
    moved(call, "vip-enter", "renamed")
    assert waiting.status()["orphaned"] == 0


def test_the_new_destination_is_rung_for_the_lane_that_moved(waiting, redis_url):
    waiting.configure(EXIT.replace('"insider"', '"other"'), other=True)
    waiting.client.flushdb()
    waiting.configure(EXIT)
    gone = payload("ann@example.com", direction="exit")
    waiting.publish(gone, job="load")
    (job_stream,) = find_streams(waiting.client, waiting.partitions())
    waiting.client.delete(job_stream.partition.wakeup)
    waiting.configure(EXIT.replace('"insider"', '"other"'), other=True)
    claim(waiting.client, waiting.settings)
    wakeup = PartitionKeys("other", job_stream.partition.number).wakeup
    waker = SilentWaker()

    with closing(connect(redis_url)) as client:
        target = waiting.settings.triggers["vip-exit"]
        store = Waiting(client, waiting.settings, target, waker)
        assert list(store.replay(Filter()).steps()) == [1]

        assert waker.woken == [("other", job_stream.partition.number, "backfill")]
        assert client.get(wakeup) == b"3"
        waiting.configure(EXIT)
        waiting.publish(gone)
        waiting.configure(EXIT.replace('"insider"', '"other"'), other=True)
        moving = Waiting(client, waiting.settings, target, waker).replay(Filter())
        assert list(moving.steps()) == [1]

        assert waker.woken[1:] == [("other", job_stream.partition.number, "live")]
        assert client.get(wakeup) == b"1"


def test_what_moves_leaves_no_trace_of_its_failures(waiting, call):
    waiting.configure(EXIT, triggers=RENAMED)
    stream = find_streams(waiting.client, waiting.partitions(), Choice(trigger="vip-enter"))[0]
    (first, *_) = waiting.client.xrange(stream.partition.stream(stream.name))
    waiting.client.hset(
        stream.partition.aside, f"{stream.name}|{first[0].decode()}", "[1, 1, 0, 0, 0]"
    )

    moved(call, "vip-enter", "renamed")

    assert not waiting.client.exists(stream.partition.aside)


ENTER_OF_GOLD = ENTER.replace('["*"]', '["gold"]')
ENTER_AS_EXIT = EXIT.replace("vip-exit", "vip-enter")
EXIT_AS_ENTER = ENTER.replace("vip-enter", "vip-exit")


def swapped(relay):
    """Let the two triggers swap their names."""
    relay.configure(EXIT_AS_ENTER, triggers=ENTER_AS_EXIT)


def enters_and_exits(relay, people=5):
    relay.publish(*(payload(f"in{n}@example.com") for n in range(people)))
    relay.publish(*(payload(f"out{n}@example.com", direction="exit") for n in range(people)))


def test_triggers_that_swapped_their_names_deliver_nothing_of_each_other(relay, call):
    enters_and_exits(relay)
    swapped(relay)

    relay.drain()

    found = relay.status()
    assert (found["delivered"], found["skipped"], found["waiting"]) == (0, 0, 10)
    assert found["orphans"] == {"vip-enter": 5, "vip-exit": 5}
    assert found["orphans_mended_by"] == {
        "vip-enter": "segrelay rename trigger vip-enter vip-exit",
        "vip-exit": "segrelay rename trigger vip-exit vip-enter",
    }
    assert moved(call, "vip-enter", "vip-exit") == {"moved": 5, "left": 0}
    assert moved(call, "vip-exit", "vip-enter") == {"moved": 5, "left": 0}
    relay.drain()
    found = relay.status()
    assert (found["delivered"], found["waiting"], found["orphaned"]) == (10, 0, 0)
    assert {name: each["delivered"] for name, each in found["triggers"].items()} == {
        "vip-enter": 5,
        "vip-exit": 5,
    }


def test_what_is_orphaned_is_delivered_once_its_trigger_wants_it_again(relay):
    enters_and_exits(relay)
    swapped(relay)
    relay.drain()

    relay.configure(EXIT)

    assert relay.status()["orphaned"] == 0
    relay.drain()
    assert relay.status()["delivered"] == 10


def test_an_audience_that_a_trigger_no_longer_names_is_orphaned(relay, discard):
    relay.publish(payload("ann@example.com"), payload("ben@example.com", audience="gold"))
    relay.configure(triggers=ENTER_OF_GOLD)

    relay.drain()

    found = relay.status()
    assert (found["delivered"], found["orphans"]) == (1, {"vip-enter": 1})
    assert found["orphans_mended_by"] == {"vip-enter": "segrelay discard --trigger vip-enter"}
    assert discard("--trigger", "vip-enter") == 1
    assert relay.status()["orphaned"] == 0


def test_an_audience_named_by_its_id_is_no_orphan(relay):
    relay.publish(payload("ann@example.com"))
    relay.configure(triggers=ENTER.replace('["*"]', '["vipvipvip"]'))

    relay.drain()

    assert relay.status()["delivered"] == 1


def test_new_events_are_read_behind_many_orphans(relay, call):
    many = 3_000
    relay.publish(*(payload(f"p{number}@example.com", "old") for number in range(many)))
    relay.configure(triggers=ENTER_OF_GOLD)
    relay.drain()
    assert relay.status()["orphaned"] == many
    relay.publish(payload("ann@example.com", "gold"), payload("ben@example.com", "gold"))

    relay.drain()

    found = relay.status()
    assert (found["delivered"], found["orphaned"], found["waiting"]) == (2, many, many)
    relay.configure(ENTER.replace("vip-enter", "all-enter"), triggers=ENTER_OF_GOLD)
    assert moved(call, "vip-enter", "all-enter") == {"moved": many, "left": 0}
    assert relay.status()["orphaned"] == 0


def test_why_says_that_a_delivery_is_orphaned(relay, call):
    enters_and_exits(relay, people=1)
    swapped(relay)

    (line,) = orjson.loads(call(app, "why", "in0@example.com", "--json").stdout)["waiting"]

    assert line["what"] == "orphaned"
    assert "rename trigger" in line["detail"]
