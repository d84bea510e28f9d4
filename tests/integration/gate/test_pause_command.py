"""`segrelay pause` and `segrelay resume` against a real Valkey."""

from functools import partial

import orjson
import pytest

from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.acts import Act
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.triggers import Pause, field_of, read_pauses, set_pause
from segrelay.worker.core.verdicts import AccessRefused
from segrelay.worker.errors import UsageWrong
from tests.commands import called as run
from tests.configuration import endpoint, settings_in, trigger
from tests.integration.gate.test_redis_gate import booked, with_gate

ACT = Act("pause", "ops")

CONFIG = [
    endpoint("insider", rate="600/min"),
    endpoint("both", base_url="http://127.0.0.1:10", rate="600/min"),
    trigger("vip-enter", url="/one"),
    trigger("both", on="exit", url="/one"),
]


@pytest.fixture
def client(redis_url, tmp_path, monkeypatch):
    settings = settings_in(tmp_path, *CONFIG, redis=redis_url)
    monkeypatch.setenv("SEGRELAY_CONFIG", str(settings.source))
    with connect(redis_url) as connected:
        yield connected


def at_the_gate(redis_url, act):
    return with_gate(redis_url, act, load_settings().destinations["insider"])


def test_a_trigger_is_paused_with_a_reason_and_resumed_and_no_other(client, redis_url):
    paused = run("pause", "vip-enter", "--why", "the template is wrong")
    pauses = read_pauses(client)
    resumed, other = run("resume", "vip-enter"), run("resume", "trigger:both")

    assert paused.stdout == "trigger vip-enter is paused\n"
    assert pauses.triggers["vip-enter"].reason == "the template is wrong"
    assert "@" in pauses.triggers["vip-enter"].by
    assert pauses.triggers["vip-enter"].at
    assert resumed.stdout == "trigger vip-enter is resumed\n"
    assert other.stdout == "trigger both was not paused\n"
    assert not at_the_gate(redis_url, partial(booked, triggers=["both"])).probe
    assert not read_pauses(client).triggers


@pytest.mark.usefixtures("client")
def test_json_says_what_was_changed():
    run("pause", "insider")

    document = orjson.loads(run("pause", "insider", "trigger:both", "--json").stdout)

    assert document == {
        "paused": [
            {"kind": "destination", "name": "insider", "changed": False},
            {"kind": "trigger", "name": "both", "changed": True},
        ],
        "reason": "",
    }


def test_all_pauses_every_destination_and_resumes_everything(client):
    pause = Pause("everything dies", "segrelay", edition="ab")
    set_pause(client, field_of("trigger", "vip-enter"), pause, ACT)
    client.hset(keys.FINGERPRINTS, "vip-enter", "ab")

    run("pause", "--all")
    destinations = set(read_pauses(client).destinations)
    resumed, anyway = run("resume", "--all"), run("resume", "--all", "--anyway")

    assert destinations == {"both", "insider"}
    assert resumed.stdout.splitlines() == [
        "destination both is resumed",
        "destination insider is resumed",
    ]
    assert "trigger vip-enter stays paused: workers still use the template" in resumed.stderr
    assert (resumed.exit_code, anyway.exit_code) == (1, 0)
    assert anyway.stdout == "trigger vip-enter is resumed\n"
    assert run("resume", "--all").stdout == "nothing was paused\n"


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vip-entre"], "There is no destination or trigger vip-entre. Did you mean vip-enter?"),
        (["both"], "write destination:both or trigger:both"),
        (["destination:vip-enter"], "There is no destination destination:vip-enter."),
        ([], "Name a destination or a trigger, or say --all."),
        (["insider", "--all"], "Name a destination or a trigger, or say --all."),
    ],
)
def test_a_name_that_is_not_clear_is_refused(args, message):
    for command in ("pause", "resume"):
        with pytest.raises(UsageWrong, match=message.replace("?", r"\?")):
            run(command, *args)


def test_what_only_redis_knows_can_be_paused_too(client):
    position = keys.PartitionKeys("gone", 3)
    client.hset(keys.DESTINATIONS, "gone", "gone ")
    client.sadd(position.streams, "live|old")
    client.xadd(position.stream("live|old"), {"h": "", "p": ""})

    assert run("pause", "gone", "old").exit_code == 0
    assert run("resume", "gone", "old").stdout.count("resumed") == 2


@pytest.mark.usefixtures("client")
def test_a_resumed_destination_opens_its_gate_and_sends_one_probe(redis_url):
    async def refuse(gate):
        await gate.report(await booked(gate), AccessRefused("Access Denied"), delivered={})
        return await booked(gate)

    async def twice(gate):
        return await booked(gate), await booked(gate)

    refused = at_the_gate(redis_url, refuse)
    resumed = run("resume", "insider")
    probe, other = at_the_gate(redis_url, twice)

    assert refused.reason == "access_refused"
    assert resumed.stdout == "destination insider is resumed\n"
    assert probe.probe
    assert other.reason == "probing"


def test_a_pause_that_cannot_be_read_still_pauses(client):
    client.hset(keys.PAUSED, "trigger|vip-enter", "not JSON")
    client.hset(keys.PAUSED, "destination|insider", "[1]")
    client.hset(keys.PAUSED, "nonsense", "{}")

    pauses = read_pauses(client)

    assert pauses.triggers == {"vip-enter": Pause()}
    assert pauses.destinations == {"insider": Pause()}
