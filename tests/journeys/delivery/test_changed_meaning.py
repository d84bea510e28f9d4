"""Triggers that swap their names, and a destination that gets another address, under workers."""

import signal
import time

from segrelay.ops.sandbox import SandboxProcess
from segrelay.sandbox.people import Happening
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE, load_settings
from tests.journeys.play import (
    SHORT,
    Rig,
    lines,
    publish,
    start_worker,
    status_of,
    stop_worker,
    watched,
)
from tests.nightly import amount
from tests.waiting import until

PEOPLE = amount(100, nightly=3_000)


def happened(*, is_exit, seconds, first=0):
    at_us = int((time.time() - 3_600 + seconds) * 1_000_000)
    return [
        Happening(f"person{n}@example.com", "vip", is_exit=is_exit, time_us=at_us + n)
        for n in range(first, first + PEOPLE)
    ]


def rewrite(rig, *changes):
    """Change the configuration; the workers that run still have the old one."""
    path = rig.settings.source
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    rig.settings = load_settings(path, environ={})


def run(rig, *arguments):
    answer = rig.command(*arguments, "--yes")
    assert answer.returncode == 0, answer.stderr.decode()
    return answer.stdout.decode()


SWAP = (
    ("[triggers.enter]", "[triggers.swap]"),
    ("[triggers.exit]", "[triggers.enter]"),
    ("[triggers.swap]", "[triggers.exit]"),
)


def test_triggers_that_swap_their_names_make_nobody_wrong(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, exit_events=False) as rig, watched(rig):
        members = happened(is_exit=False, seconds=0, first=PEOPLE)
        worker = start_worker(rig)
        publish(rig, lines(members))
        until(lambda: status_of(rig)["waiting"] == 0, 60)
        stop_worker(worker)
        publish(rig, lines(happened(is_exit=False, seconds=10)))
        publish(rig, lines(happened(is_exit=True, seconds=10, first=PEOPLE)))
        rewrite(rig, *SWAP)

        start_worker(rig)
        until(lambda: status_of(rig)["waiting"] == 0, 60)

        assert set(rig.memberships()) == {each.email for each in members}
        status = status_of(rig)
        assert (status["dead_by_reason"], status["skipped"]) == ({"unwanted": 2 * PEOPLE}, 0)


def test_workers_with_the_former_address_send_nobody_there_who_came_after_the_move(tmp_path):
    """One of them sleeps through it; a worker with the new one is refused until it is confirmed."""
    with (
        Rig(tmp_path, delivery_lines=SHORT) as rig,
        SandboxProcess(launch=rig.launch) as moved,
        watched(rig),
    ):
        start_worker(rig)
        asleep = start_worker(rig)
        before = happened(is_exit=False, seconds=0)
        publish(rig, lines(before))
        until(lambda: status_of(rig)["waiting"] == 0, 60)
        asleep.send_signal(signal.SIGSTOP)
        rewrite(rig, (f'base_url = "{rig.sandbox.url}"', f'base_url = "{moved.url}"'))

        refused = rig.start_worker("--concurrency=1")
        assert refused.wait(60) == 2
        assert b"redis confirm-destination insider" in rig.worker_log(2).read_bytes()
        run(rig, "redis", "confirm-destination", "insider")
        asleep.send_signal(signal.SIGCONT)
        after = happened(is_exit=False, seconds=10, first=PEOPLE)
        publish(rig, lines(after))
        start_worker(rig)
        until(lambda: status_of(rig)["waiting"] == 0, 60)

        assert set(rig.memberships()) == {each.email for each in before}
        found = moved.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
        assert set(found) == {each.email for each in after}
