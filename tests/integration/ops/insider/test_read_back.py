"""People are read back by themselves: what Insider drops without a word is told."""

import orjson
import pytest

from segrelay.ops.insider.reader import PROFILE_PATH
from segrelay.ops.read_back import reading_back_for
from segrelay.ops.state.read_backs import read_read_backs
from segrelay.ops.status.health import read_problems
from segrelay.worker.adapters.redis.survey import RedisSchedule
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import READ_BACK_TASK, BackgroundJob
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed

READ_BACK = 'read_back_every = "1h"\nread_back_after = "0s"'


@pytest.fixture
def read_back(relay):
    """A small segrelay whose people are read back an hour apart."""
    path = relay.settings.source
    text = path.read_text().replace('rate = "25000/min"', f'rate = "25000/min"\n{READ_BACK}')
    path.write_text(text)
    relay.reload()
    return relay


def step(relay):
    relay.client.hset(keys.read_back("insider"), "next", 0)
    return reading_back_for(relay.client, relay.settings, "insider").step()


def problems(relay):
    found = read_problems(relay.client, relay.settings)
    return [one for one in found if one.name in {"attributes_dropped", "read_back_fails"}]


def without(sandbox, *names):
    attributes = sandbox.settings()["panel_attributes"]
    sandbox.settings(panel_attributes={k: v for k, v in attributes.items() if k not in names})


def test_what_the_panel_does_not_define_is_a_problem_after_the_second_person(read_back, sandbox):
    defined = sandbox.settings()["panel_attributes"]
    without(sandbox, "status")
    read_back.publish(*[payload(f"p{n}@example.com", status="active") for n in range(5)])
    read_back.drain()

    first = step(read_back)
    before = problems(read_back)
    step(read_back)
    [problem] = problems(read_back)

    assert (before, first.wait_seconds) == ([], 60)
    assert (problem.name, problem.subject) == ("attributes_dropped", "insider")
    assert "status (of vip-enter)" in problem.message
    assert DEFAULT_AUDIENCE_ATTRIBUTE not in problem.message
    assert problem.command == "segrelay config check --live"
    sandbox.settings(panel_attributes=defined)
    read_back.publish(payload("ann@example.com", minute=5, status="active"))
    read_back.drain()
    step(read_back)
    assert problems(read_back) == []


def test_a_list_of_audiences_that_is_not_defined_is_a_problem_and_an_empty_one_is_none(
    read_back, sandbox
):
    read_back.publish(payload("ann@example.com"))
    read_back.drain()
    read_back.publish(payload("ann@example.com", direction="exit", minute=1))
    read_back.drain()
    step(read_back)
    state = read_read_backs(read_back.client, read_back.settings)["insider"]
    without(sandbox, DEFAULT_AUDIENCE_ATTRIBUTE)
    read_back.publish(payload("bob@example.com", minute=2), payload("cid@example.com", minute=2))
    read_back.drain()

    step(read_back)
    step(read_back)

    [problem] = problems(read_back)
    assert (state.read, state.missing) == (1, {})
    assert f"{DEFAULT_AUDIENCE_ATTRIBUTE} (of vip-enter)" in problem.message


def test_opt_ins_are_found_under_the_names_of_the_reading_path(read_back):
    read_back.publish(payload("ann@example.com", consent_gdpr_status="t", consent_email_status="t"))
    read_back.drain()

    step(read_back)

    state = read_read_backs(read_back.client, read_back.settings)["insider"]
    assert (state.read, state.missing) == (1, {})


def test_where_all_is_there_nothing_is_told_and_the_next_is_read_an_hour_later(read_back):
    ids = read_back.settings.redis.ids
    job = BackgroundJob(READ_BACK_TASK, "insider", ids.of("insider"))
    schedule = RedisSchedule(read_back.client, read_back.settings)
    read_back.publish(payload("ann@example.com", status="active", first_name="Ann"))
    read_back.drain()

    assert job in schedule.due()
    told = step(read_back)

    assert told.wait_seconds == 3_600
    assert job not in schedule.due()
    found = read_read_backs(read_back.client, read_back.settings)["insider"]
    assert (found.read, found.missing, found.problem) == (1, {}, "")


def kept_people(relay):
    """Return what Redis keeps of people for `verify`."""
    return [
        PROTECTION.unseal(text, digest)
        for partition in relay.partitions()
        for digest, text in relay.client.hgetall(partition.who).items()
    ]


def test_redis_keeps_names_of_attributes_and_no_values(read_back):
    read_back.publish(payload("ann@example.com", status="a-secret-status", first_name="Ann"))
    read_back.drain()

    texts = kept_people(read_back)

    [(_, who, trigger, names)] = map(orjson.loads, texts)
    assert who["identifiers"]["email"] == "ann@example.com"
    assert (trigger, "name" in names, "c_status" in names) == ("vip-enter", True, True)
    assert b"a-secret-status" not in texts[0]


def test_nobody_is_read_back_while_the_destination_is_paused(read_back, sandbox):
    read_back.publish(payload("ann@example.com"))
    read_back.drain()
    sandbox.settings(credentials_status=401)
    read_back.publish(payload("bob@example.com"))
    read_back.drain()

    assert step(read_back).line == "the destination is paused: nobody is read back"


def configured(relay, *lines):
    """Write lines into the destination's table."""
    path = relay.settings.source
    rate = 'rate = "25000/min"'
    path.write_text(path.read_text().replace(rate, "\n".join((rate, *lines))))
    relay.reload()
    return relay


def test_by_default_people_are_read_back_once_the_first_can_be(relay):
    relay.publish(payload("ann@example.com"))
    relay.drain()

    assert not [
        job for job in RedisSchedule(relay.client, relay.settings).due() if job.destination_id
    ]
    left_ms = int(relay.client.hget(keys.read_back("insider"), "next")) - now_ms(relay.client)
    assert 21_000_000 < left_ms <= 21_600_000


def test_where_it_is_turned_off_nobody_is_read_back_and_nothing_more_is_kept(relay):
    configured(relay, 'read_back_every = "0s"')
    relay.publish(payload("ann@example.com"))
    relay.drain()

    assert not [
        job for job in RedisSchedule(relay.client, relay.settings).due() if job.destination_id
    ]
    assert not relay.client.exists(keys.read_back("insider"))
    [text] = kept_people(relay)
    assert len(orjson.loads(text)) == 2


def test_by_default_nothing_is_told_where_nobody_can_be_read(relay, sandbox):
    configured(relay, 'read_back_after = "0s"')
    relay.publish(*[payload(f"p{n}@example.com") for n in range(60)])
    relay.drain()
    sandbox.settings(credentials_status=401)

    waits = [step(relay).wait_seconds for _ in range(4)]

    assert (problems(relay), waits) == ([], [86_400] * 4)


def test_by_default_what_lacks_is_told_once_reading_is_proven(relay, sandbox):
    configured(relay, 'read_back_after = "0s"')
    without(sandbox, "status")
    sandbox.settings(failures=[{"status": 404, "path": PROFILE_PATH}])
    relay.publish(*[payload(f"p{n}@example.com", status="active") for n in range(60)])
    relay.drain()
    steps = [step(relay).line for _ in range(3)]
    assert (set(steps), problems(relay)) == ({"Insider does not know the person"}, [])

    sandbox.settings(failures=[])
    step(relay)
    step(relay)

    [problem] = problems(relay)
    assert "status (of vip-enter)" in problem.message


def test_credentials_that_may_not_read_are_told_after_three_steps(read_back, sandbox):
    read_back.publish(payload("ann@example.com"))
    read_back.drain()
    sandbox.settings(credentials_status=403)

    for _ in range(3):
        step(read_back)

    [problem] = problems(read_back)
    assert (problem.name, problem.severity) == ("read_back_fails", "attention")
