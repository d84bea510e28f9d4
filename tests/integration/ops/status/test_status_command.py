"""`segrelay status` as a person calls it."""

from importlib.metadata import version

import orjson

from segrelay.ops.status.standing import WatchedFile, read_newest
from segrelay.worker.adapters.redis.survey import RedisPresence
from segrelay.worker.contract.processes import WORKER, Process
from segrelay.worker.contract.redis.acts import Act
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.triggers import Pause, field_of, set_pause
from tests.integration.ops.relay import payload
from tests.integration.ops.terminal import on_a_terminal

ACT = Act("pause", "ops")


def started(relay, pid, config, ago_ms):
    """Let a worker run that was started some time ago; it is seen for 19 s."""
    seconds, rest = relay.client.time()
    now_us = seconds * 1_000_000 + rest
    one = Process("host", pid, WORKER, config, begun_ms=now_us // 1_000 - ago_ms)
    relay.client.zadd("{segrelay}:processes", {one.dumps(): now_us + 9_000_000})


def test_a_watching_process_reads_the_file_anew_once_it_is_in_use(relay):
    file = WatchedFile(relay.settings)
    source = relay.settings.source
    source.write_text(source.read_text() + '\n[operate]\nlive_within = "7s"\n')
    changed = load_settings(source)
    started(relay, 1, relay.settings.fingerprint, ago_ms=3_600_000)
    assert read_newest(relay.client, file).settings is relay.settings

    started(relay, 2, changed.fingerprint, ago_ms=1_000)
    assert read_newest(relay.client, file).settings.operate.live_within_seconds == 7.0

    working = WatchedFile(relay.settings, may_change=False)
    assert read_newest(relay.client, working).settings is relay.settings


def test_what_a_worker_tells_of_itself_is_shown(call, relay):
    told = {
        "stopped": {"vip-exit": "env:TOKEN is not set"},
        "refused_messages": 12,
        "doubted": {"insider/enter.jsonnet": 1},
    }
    RedisPresence(
        relay.client,
        relay.settings.fingerprint,
        clock=lambda: 1.0,
        about=lambda: told,
    ).announce()

    document = orjson.loads(call("status", "--json").stdout)
    shown = " ".join(call("status").stdout.split())

    (process,), triggers = document["processes"], document["triggers"]
    assert (process["doubted"], process["current"]) == ({"insider/enter.jsonnet": 1}, True)
    assert process["refused_messages"] == 12
    assert (triggers["vip-enter"]["state"], triggers["vip-exit"]["state"]) == ("ok", "stopped")
    assert f" {version('segrelay')} {relay.settings.fingerprint}; the compiled form of" in shown
    assert "insider/enter.jsonnet is off" in shown


def check(call, *options):
    result = call("status", "--check", "--json", *options)
    return result.exit_code, orjson.loads(result.stdout)["problems"]


def names_of(problems):
    return {one["name"] for one in problems}


def test_a_monitor_is_told_that_all_is_well_and_what_is_worth_a_look_only_if_it_asks(call, relay):
    started(relay, 1, relay.settings.fingerprint, ago_ms=0)
    relay.publish(payload("ann@example.com", status="fine"), job="load")
    assert check(call, "--attention") == (0, [])
    assert call("status", "--check").stdout == "All is well.\n"
    set_pause(relay.client, field_of("job", "load"), Pause("later", "ops"), ACT)

    code, problems = check(call, "--attention")

    assert check(call) == (0, [])
    assert (code, names_of(problems)) == (1, {"job_paused"})


def test_a_monitor_is_told_what_is_ill_and_what_the_configuration_forgot(call, relay):
    set_pause(
        relay.client, field_of("trigger", "vip-enter"), Pause("all of one cause", "segrelay"), ACT
    )
    relay.publish(payload("ann@example.com", direction="exit"))
    relay.configure()
    started(relay, 1, relay.settings.fingerprint, ago_ms=3_600_000)
    started(relay, 2, "newer", ago_ms=121_000)

    code, problems = check(call)
    document = orjson.loads(call("status", "--json").stdout)

    assert code == 1
    assert names_of(problems) == {"trigger_paused", "orphaned", "worker_configuration"}
    (paused,) = [one for one in problems if one["name"] == "trigger_paused"]
    assert (paused["subject"], paused["message"]) == ("vip-enter", "all of one cause")
    assert paused["command"] == "segrelay resume vip-enter"
    assert (document["orphaned"], document["orphans"]) == (1, {"vip-exit": 1})
    assert document["triggers"]["vip-exit"]["state"] == "orphaned"
    assert document["waiting"] == 1
    assert "vip-exit 1" in call("status").stdout


def test_a_redis_that_is_not_there_is_unreachable_and_none_is_started(call, relay, tmp_path):
    gone = relay.settings.source.read_text().replace(
        relay.settings.redis.url, "redis://127.0.0.1:9"
    )
    relay.settings.source.write_text(gone)
    assert check(call)[0] == 3

    embedded = gone.replace("redis://127.0.0.1:9", "embedded")
    relay.settings.source.write_text(embedded)
    assert check(call)[0] == 3
    assert not (tmp_path / ".segrelay").exists()


def test_what_wants_a_person_is_red_on_a_terminal_unless_it_wants_no_colour(relay):
    set_pause(relay.client, field_of("destination", "insider"), Pause("maintenance", "ops"), ACT)
    environment = {"SEGRELAY_CONFIG": str(relay.settings.source), "TERM": "xterm"}

    plain = on_a_terminal("status", **environment, NO_COLOR="1")
    drawn = on_a_terminal("status", **environment)

    assert "\x1b[31m" in drawn
    assert "maintenance" in plain
    assert "\x1b[31m" not in plain
