"""Poison: events that never end, eat memory or kill their process, and events that are huge."""

import os
import random
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import orjson
import pytest

from segrelay.sandbox.people import Happening, truth
from tests.child_processes import with_descendants
from tests.journeys.play import (
    SHORT,
    Rig,
    lines,
    nothing_is_wrong,
    run,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.nightly import amount
from tests.waiting import until

ENTER = "insider/enter.jsonnet"
PEOPLE = 600
LARGE_PEOPLE = amount(30, nightly=300)
ENGINE = 'engine = "jsonnet"'
"""What kills is Jsonnet itself: the compiled form calls such an event dead and lives on."""
MB = 1_000_000
DEADLY = "local f(x) = f(x + 1) tailstrict; f(0)"
"""Recurs without end."""


def template(condition):
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
      deadly: if {condition} then {DEADLY},
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
    text = run(rig, "dlq", "list", "--json", "--reveal", "--limit", "1000").decode()
    return {n for n in range(PEOPLE) if f"person{n}@example.com" in text}


def test_only_the_events_that_kill_are_dead_and_the_partition_goes_on(tmp_path):
    poison = {17, 423}
    happened = entrances(PEOPLE)
    templates = {ENTER: template(poisoned(poison))}
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


@pytest.mark.nightly
def test_profiles_of_a_megabyte_are_delivered_within_bounded_memory(tmp_path):
    happened = entrances(LARGE_PEOPLE)
    rng = random.Random(4)
    with Rig(tmp_path) as rig, watched(rig):
        send(rig, b"".join(large(line, rng) for line in lines(happened).splitlines()))
        worker = start_worker(rig, "--concurrency=2")
        seen = []
        processes = partial(with_descendants, worker.pid)
        until(lambda: seen.extend(map(memory_of, processes())) or not rig.waiting(), 120)

        nothing_is_wrong(rig, happened)
        assert max(seen) < 1000 * MB


def large(line, rng):
    """Return a payload with a megabyte of a profile that hardly compresses."""
    payload = orjson.loads(line)
    payload["data"] |= {f"field_{n}": rng.randbytes(250).hex() for n in range(2_000)}
    return orjson.dumps(payload) + b"\n"


def memory_of(pid):
    """Return the resident bytes of a process; 0 if it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
