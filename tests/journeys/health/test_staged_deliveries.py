"""Failures of a destination and of processes, staged one after the other."""

import os
import signal
from contextlib import contextmanager

from tests.child_processes import children_of
from tests.journeys.health.staging import staged
from tests.journeys.play import start_worker


@contextmanager
def frozen(processes):
    """Let processes stand still for a while."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def test_failures_of_a_destination_and_of_processes_are_named(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        workers = [start_worker(rig) for _ in range(2)]
        stage.enter(1)
        stage.cured()

        rig.sandbox.settings(credentials_status=401)
        stage.enter(5)
        stage.named("destination_paused", "401", "segrelay resume insider")
        rig.sandbox.settings(credentials_status=0)
        stage.run("resume", "insider")
        stage.cured()

        rig.sandbox.settings(error_shares={"503": 1.0})
        stage.enter(20)
        stage.named("destination_broken", "503", "segrelay config check --live")
        rig.sandbox.settings(error_shares={})
        stage.cured()

        stage.run("pause", "enter", "--why", "the panel is mended")
        stage.enter(1)
        stage.named("trigger_paused", "the panel is mended", "segrelay resume enter")
        stage.run("resume", "enter")
        stage.cured()

        rig.sandbox.settings(failures=[{"status": 400, "contains": "users"}])
        stage.enter(3)  # a single one would soon be dead, since others were taken lately
        stage.named("trigger_refused", "400", "segrelay template check")
        rig.sandbox.settings(failures=[])
        stage.cured()

        with frozen([pid for worker in workers for pid in children_of(worker.pid)]):
            stage.enter(3)
            stage.named("live_late", "has waited for", "segrelay tap --trigger")
        stage.cured()

        rig.sandbox.settings(failures=[{"status": 413, "contains": "users"}])
        stage.enter(30)
        stage.named("dead_letters_grow", "too_large", "segrelay dlq causes")
        rig.sandbox.settings(failures=[])
        stage.run("dlq", "replay", "--all", "--yes")
        stage.cured()
