"""Poison: events that never end, eat memory or kill their process, and events that are huge."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.sandbox.people import Happening, truth
from segrelay.worker.adapters.redis.self_pause import KILLS_IN_A_ROW
from tests.journeys.play import (
    SHORT,
    Rig,
    lines,
    nothing_is_wrong,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.nightly import amount
from tests.waiting import allowed, until

ENTER = "insider/enter.jsonnet"
PEOPLE = 600
SLOW_PEOPLE = amount(1_200, nightly=6_000)
LARGE_PEOPLE = amount(30, nightly=300)
ENGINE = 'engine = "jsonnet"'
"""What kills is Jsonnet itself: the compiled form calls such an event dead and lives on."""
MB = 1_000_000
SIGNALS = amount(
    [signal.SIGKILL, signal.SIGSTOP],
    nightly=[signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM],
)
DEADLY = {
    "recurs without end": "local f(x) = f(x + 1) tailstrict; f(0)",
    "eats memory": "std.length(std.sort(std.range(0, 1000000000)))",
    "never ends": "std.length([1 for i in std.range(1, 1000000000) if i < 0])",
}


def template(condition, deadly):
    """Return an entrance whose rendering kills where the condition holds."""
    return f"""
local event = import "lytemplates.libsonnet";
local email = event.get("email");
local number = std.parseInt(std.split(std.substr(email, 6, 20), "@")[0]);
{{
  users: [{{
    identifiers: {{ email: email }},
    attributes: {{ custom: {{
      lytics_computed_attr: [event.segSlug()],
      deadly: if {condition} then {deadly},
    }} }},
  }}],
}}
"""


def entrances(people, first=0):
    start_us = int(time.time() * 1_000_000) - 3_600_000_000
    return [
        Happening(f"person{n}@example.com", "vip", is_exit=False, time_us=start_us + n)
        for n in range(first, first + people)
    ]


def poisoned(numbers):
    return "std.member(" + str(sorted(numbers)) + ", number)"


def dead_by_reason(rig):
    return status_of(rig)["dead_by_reason"]


def dead_people(rig):
    answer = rig.command("dlq", "list", "--json", "--reveal", "--limit", "1000")
    assert answer.returncode == 0, answer.stderr.decode()
    text = answer.stdout.decode()
    return {n for n in range(PEOPLE) if f"person{n}@example.com" in text}


@pytest.mark.parametrize(
    ("deadly", "poison"),
    [
        pytest.param("recurs without end", {17, 423}, id="recurs without end"),
        pytest.param("eats memory", {300}, id="eats memory", marks=pytest.mark.nightly),
        pytest.param("never ends", {300}, id="never ends", marks=pytest.mark.nightly),
    ],
)
def test_only_the_events_that_kill_are_dead_and_the_partition_goes_on(tmp_path, deadly, poison):
    happened = entrances(PEOPLE)
    templates = {ENTER: template(poisoned(poison), DEADLY[deadly])}
    with (
        Rig(tmp_path, delivery_lines=SHORT, templates=templates, enter_lines=ENGINE) as rig,
        watched(rig),
    ):
        send(rig, lines(happened))
        start_worker(rig)

        rig.wait_until_empty(150)

        assert dead_by_reason(rig) == {"killed_worker": len(poison)}
        spared = [e for n, e in enumerate(happened) if n not in poison]
        assert rig.memberships() == truth(spared)
        assert dead_people(rig) == poison
        later = entrances(PEOPLE, first=PEOPLE)
        send(rig, lines(later))
        rig.wait_until_empty(30)
        assert rig.memberships() == truth(spared + later)


def test_a_template_that_always_kills_pauses_its_trigger_and_no_other(tmp_path):
    happened = entrances(PEOPLE)
    exits = [Happening(e.email, e.audience, is_exit=True, time_us=e.time_us - 1) for e in happened]
    templates = {ENTER: template("number >= 0", DEADLY["recurs without end"])}
    lines_of_redis = "partitions = 4"
    with (
        Rig(
            tmp_path,
            delivery_lines=SHORT,
            redis_lines=lines_of_redis,
            templates=templates,
            enter_lines=ENGINE,
        ) as rig,
        watched(rig),
    ):
        send(rig, lines(exits + happened))
        start_worker(rig)

        until(lambda: status_of(rig)["triggers"]["enter"]["state"] == "paused", 120)

        until(lambda: status_of(rig)["triggers"]["exit-event"]["waiting"] == 0, 60)
        status = status_of(rig)
        assert dead_by_reason(rig) == {"killed_worker": status["dead"]}
        assert status["dead"] == KILLS_IN_A_ROW
        assert status["waiting"] == PEOPLE - status["dead"]


@pytest.mark.nightly
def test_kills_and_stops_while_rendering_make_no_letter(tmp_path):
    happened = entrances(SLOW_PEOPLE)
    slow = "std.length([1 for i in std.range(1, 3000) if i < 0])"
    templates = {ENTER: template("true", slow)}
    with (
        Rig(tmp_path, delivery_lines=SHORT, templates=templates, enter_lines=ENGINE) as rig,
        watched(rig),
    ):
        send(rig, lines(happened))
        worker = start_worker(rig, "--concurrency=2")
        for number in SIGNALS:
            until(lambda: is_rendering(rig), 20)
            kill_group(worker)
            worker = start_worker(rig, "--concurrency=2")
            for pid in until(lambda worker=worker: throw_away_processes(worker)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        until(lambda: throw_away_processes(worker))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(allowed(5)) == 0
        start_worker(rig, "--concurrency=2")
        rig.wait_until_empty(120)

        nothing_is_wrong(rig, happened)


def is_rendering(rig):
    return rig.client.exists(*(keys.rendering for keys in rig.partitions()))


def throw_away_processes(worker):
    """Return the processes that render apart for a worker."""
    found = []
    for pid in group_of(worker):
        with suppress(OSError):
            if b"jsonnet.isolated" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_profiles_of_a_megabyte_are_delivered_within_bounded_memory(tmp_path):
    happened = entrances(LARGE_PEOPLE)
    rng = random.Random(4)
    with Rig(tmp_path) as rig, watched(rig):
        send(rig, b"".join(large(line, rng) for line in lines(happened).splitlines()))
        worker = start_worker(rig, "--concurrency=2")
        most = 0
        while rig.waiting():
            most = max(most, *map(memory_of, group_of(worker)))
            time.sleep(0.1)

        nothing_is_wrong(rig, happened)
        assert most < 1000 * MB


def large(line, rng):
    """Return a payload with a megabyte of a profile that hardly compresses."""
    payload = orjson.loads(line)
    payload["data"] |= {f"field_{n}": rng.randbytes(250).hex() for n in range(2_000)}
    return orjson.dumps(payload) + b"\n"


def group_of(worker):
    """Return the processes of a worker, whichever of its threads started them."""
    found = [worker.pid]
    for pid in found:
        with suppress(OSError):
            for started in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, started.read_text().split())
    return found


def memory_of(pid):
    """Return the resident bytes of a process; 0 if it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
