"""Failures of configurations and of machines, staged one after the other."""

import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.ops.embedded import lifecycle as embedded
from segrelay.ops.run.up import own_command
from tests.journeys.health.staging import SHIPPED, TEMPLATE, staged
from tests.journeys.play import await_ready, start_worker, stop_worker
from tests.waiting import until
from tests.warm import WarmProcess

AHEAD = """
import runpy, sys, time
right = time.time
time.time = lambda: right() + 600
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module by a clock that is ten minutes ahead."""


@pytest.mark.nightly
def test_failures_of_a_changed_configuration_are_named(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        worker = start_worker(rig)
        stage.run("pause", "enter")
        stage.enter(2)

        source = rig.settings.source
        source.write_text(source.read_text().replace("[triggers.enter]", "[triggers.entered]"))
        fresh = start_worker(rig)
        stage.named("worker_configuration", "run an older configuration than", "restart")
        stop_worker(worker)
        stage.named(
            "orphaned",
            "the trigger of 2 waiting deliveries is gone",
            "segrelay discard --trigger enter",
        )
        stage.run("discard", "--trigger", "enter", "--yes")
        stage.cured()
        assert fresh.poll() is None


@contextmanager
def a_copy_elsewhere(rig):
    """Yield the folder of a second machine: equal files, at places of the same names."""
    source = rig.settings.source
    url = embedded.find(rig.settings.redis.data_dir).url
    own = source.read_text().replace(f'"{rig.folder}/templates"', '"templates"')
    source.write_text(own.replace('"embedded"', f'"{url}"'))
    other = rig.folder / "other"
    other.mkdir()
    shutil.copy(source, other)
    shutil.copytree(rig.folder / "templates", other / "templates")
    yield other


def start_elsewhere(rig, folder):
    """Start a worker with the files of another folder, and wait until it is ready."""
    with (folder / "worker.log").open("ab") as log:
        worker = WarmProcess(
            own_command("worker", "--hostname=other@%h"),
            env=rig.environment | {"SEGRELAY_CONFIG": str(folder / "segrelay.toml")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    until(lambda: b" ready." in (folder / "worker.log").read_bytes(), 60)
    return worker


def with_a_wrong_clock(command, **options):
    """Start one of our commands by a clock that is ten minutes ahead."""
    return subprocess.Popen([sys.executable, "-P", "-c", AHEAD, *command[3:]], **options)


@pytest.mark.nightly
def test_failures_of_machines_that_differ_are_named(tmp_path):
    with (
        staged(tmp_path, templates={TEMPLATE: SHIPPED}) as stage,
        a_copy_elsewhere(stage.rig) as folder,
    ):
        rig = stage.rig
        start_worker(rig)
        other = start_elsewhere(rig, folder)
        try:
            stage.cured()
            changed = folder / "templates" / TEMPLATE
            changed.write_text(f"{SHIPPED}\n// a newer version\n")
            stage.named(
                "template_differs", "differs between workers", "copy the same templates folder"
            )
            changed.write_text(SHIPPED)
            stage.cured()
            stop_worker(other)  # killed amid a message, it would let another worker send it again
        finally:
            kill_group(other)

        rig.launch = with_a_wrong_clock
        wrong = rig.start_worker()
        rig.launch = WarmProcess
        await_ready(rig, wrong)
        stage.named("clock_differs", "600 s ahead of", "set the clock by NTP")
        stop_worker(wrong)
        stage.cured()
