"""A receiver to which nothing comes, and one that gets no processor time, are named."""

import os
import signal
import time

import pytest

from tests.journeys.channel import Channel
from tests.journeys.health.staging import QUICK, Stage, again_and_again, receive, staged
from tests.journeys.judging import entrances
from tests.journeys.play import SHORT, Rig, start_worker


@pytest.mark.nightly
def test_a_silence_is_named(tmp_path, receiver):
    with Channel() as channel:
        operate = QUICK + 'events_within = "10s"\n' + channel.table()
        with Rig(tmp_path, delivery_lines=SHORT, more=operate + receiver.table()) as rig:
            stage = Stage(rig, channel)
            start_worker(rig)
            receive(stage, receiver)

            stage.named("no_events", "no event", "segrelay serve --check")
            with again_and_again(lambda: receiver.post(entrances(1)), 1.0):
                stage.cured()
                stage.all_over()


@pytest.mark.nightly
def test_a_starved_receiver_is_named(tmp_path, receiver):
    with staged(tmp_path, receiver.table()) as stage:
        start_worker(stage.rig)
        process = receive(stage, receiver)
        stage.cured()

        def stop_for_a_while():
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(4)
            os.kill(process.pid, signal.SIGCONT)

        with again_and_again(stop_for_a_while, 0.2):
            stage.named("receiver_starved", "ms late", "segrelay serve --check")
        stage.cured()
