"""The console of the demo, which nobody signs in to."""

import signal
import subprocess

import httpx

from segrelay.ops.run.up import own_command
from tests.journeys.console.console_world import words
from tests.waiting import allowed, until
from tests.warm import WarmProcess


def test_the_demo_is_shown_until_somebody_ends_it():
    with WarmProcess(
        own_command("demo", "--console", "--people", "200", "--events", "100"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    ) as demo:
        lines = iter(demo.stderr.readline, b"")
        told = next(line for line in lines if b"The console is at" in line).decode()
        address = told.split("at ")[1].split("/:")[0]
        next(line for line in lines if b"The demo is over" in line)

        def is_well():
            shown = words(httpx.get(address, timeout=allowed(60)).text)
            return "no samples yet" not in shown and "All is well ; 0 dead" in shown

        until(is_well, 300)
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=allowed(60))

    assert demo.returncode == 0
