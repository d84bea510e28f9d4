"""Processes that are forked from a loaded one are what processes of their own are."""

import os
import signal
import subprocess

import pytest

from segrelay.ops.run.up import own_command
from tests.rig import SandboxProcess
from tests.warm import WarmProcess

PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


@pytest.fixture(params=[subprocess.Popen, WarmProcess])
def launch(request):
    return request.param


def finished(launch, *arguments, **options):
    with launch(own_command(*arguments), **PIPES, **options) as process:
        output, errors = process.communicate(b"", 60)
    return process.returncode, output.decode(), errors.decode()


def test_output_and_exit_status_are_the_command_s(launch, tmp_path):
    environment = {**os.environ, "SEGRELAY_CONFIG": str(tmp_path / "none.toml")}

    version = finished(launch, "-V")
    wrong = finished(launch, "status", env=environment)

    assert (version[0], version[1].split()[0], version[2]) == (0, "segrelay", "")
    assert (wrong[0], wrong[1]) == (2, "")
    assert str(tmp_path / "none.toml") in wrong[2]


def test_a_signal_ends_it_and_is_told(launch):
    with SandboxProcess(launch=launch) as sandbox:
        os.kill(sandbox.pid, signal.SIGKILL)

        assert sandbox.wait(120) == -signal.SIGKILL


def test_a_group_of_its_own_is_ended_as_one(launch):
    command = own_command("sandbox", "--port", "0")
    with launch(command, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout.readline().startswith(b"http://")
        assert os.getpgid(process.pid) == process.pid
        assert process.poll() is None

        os.killpg(process.pid, signal.SIGKILL)

        assert process.wait(120) == -signal.SIGKILL
