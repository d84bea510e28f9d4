"""Triggers that swap their names, and a destination that gets another one, under workers."""

import signal
import time

import pytest

from segrelay.producer.publish import Publisher
from segrelay.sandbox.people import Happening, truth
from segrelay.worker.contract import keys
from segrelay.worker.contract.settings import load_settings
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
        until(lambda: status_of(rig)["orphans"] == {"enter": PEOPLE, "exit": PEOPLE}, 60)
        assert set(rig.memberships()) == {each.email for each in members}
        run(rig, "rename", "trigger", "enter", "exit")
        run(rig, "rename", "trigger", "exit", "enter")
        until(lambda: status_of(rig)["waiting"] == 0, 60)

        assert set(rig.memberships()) == {f"person{n}@example.com" for n in range(PEOPLE)}
        status = status_of(rig)
        assert (status["orphaned"], status["dead"], status["skipped"]) == (0, 0, 0)


@pytest.mark.nightly
def test_a_destination_that_is_renamed_makes_nobody_wrong(tmp_path):
    with (
        Rig(tmp_path, delivery_lines=SHORT, exit_events=False) as rig,
        watched(rig, are_moved=True),
    ):
        old = start_worker(rig)
        publish(rig, lines(happened(is_exit=True, seconds=60)))
        until(lambda: status_of(rig)["waiting"] == 0, 60)
        stop_worker(old)
        publish(rig, lines(happened(is_exit=False, seconds=0)))
        publish(rig, lines(happened(is_exit=False, seconds=90, first=PEOPLE)))
        rewrite(
            rig,
            ("[destinations.insider]", "[destinations.renamed]"),
            ('destination = "insider"', 'destination = "renamed"'),
        )

        refused = rig.start_worker("--concurrency=1")
        assert refused.wait(60) == 1
        assert b"segrelay rename destination insider renamed" in rig.worker_log(1).read_bytes()
        assert status_of(rig)["former_names"] == {"renamed": "insider"}
        run(rig, "rename", "destination", "insider", "renamed")
        start_worker(rig)
        until(lambda: status_of(rig)["waiting"] == 0, 60)

        assert set(rig.memberships()) == {
            f"person{n}@example.com" for n in range(PEOPLE, 2 * PEOPLE)
        }
        status = status_of(rig)
        assert status["accepted"] == 3 * PEOPLE
        assert status["skipped_by_reason"] == {"superseded": PEOPLE}


def test_a_destination_is_renamed_while_everything_runs_or_stands_still(tmp_path):
    """The command is killed, one worker sleeps through it, and processes with both names go on."""
    old, new = [(f"[destinations.{name}]", f'destination = "{name}"') for name in ("insider", "eu")]
    with Rig(tmp_path, delivery_lines=SHORT) as rig, watched(rig):
        awake, asleep = start_worker(rig), start_worker(rig)
        receiver = Publisher(rig.client, rig.settings)
        events = [
            happened(is_exit=bool(n % 2), seconds=10 * n, first=n * PEOPLE // 4) for n in range(8)
        ]
        texts = [lines(each).splitlines() for each in events]

        receiver.publish(texts.pop())
        asleep.send_signal(signal.SIGSTOP)
        for seconds in (0.3, 0.6, 0.9):
            killed = rig.start_beside("rename", "destination", "insider", "eu", "--yes")
            time.sleep(seconds)  # wherever it is by then
            killed.kill()
            killed.wait()
            receiver.publish(texts.pop())
        names = rig.client.hkeys(keys.DESTINATIONS)
        assert names in ([b"insider"], [b"eu"])
        if names == [b"insider"]:
            run(rig, "rename", "destination", "insider", "eu")
        receiver.publish(texts.pop())
        rewrite(rig, *zip(old, new, strict=True))
        start_worker(rig)
        asleep.send_signal(signal.SIGCONT)
        for text in texts:
            receiver.publish(text)
            publish(rig, b"\n".join(text))
        until(lambda: status_of(rig)["waiting"] == 0, 60)
        stop_worker(awake)
        status = status_of(rig)
        assert (status["orphaned"], status["dead"]) == (0, 0)
        assert list(status["destinations"]) == ["eu"]
        assert rig.memberships() == truth([one for each in events for one in each])
