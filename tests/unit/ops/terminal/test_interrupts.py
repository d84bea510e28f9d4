"""Being interrupted, and what follows."""

import os
import signal

import pytest

from segrelay.ops.terminal.serving import interrupted_once, interruptible_between_steps


def interrupt_again_and_again(number, ended):
    with interrupted_once():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append("all")


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_the_second_interrupt_does_not_disturb_what_ends_things(number, expected):
    ended = []

    with pytest.raises(expected):
        interrupt_again_and_again(number, ended)

    assert ended == ["all"]


def test_afterwards_interrupts_are_as_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    with interrupted_once():
        assert signal.getsignal(signal.SIGINT) != before[0]

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_first_interrupt_is_told_and_the_second_unwinds():
    with interruptible_between_steps() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        told = interruption.is_requested
        with pytest.raises(SystemExit) as stop:
            interruption.obey()
        with pytest.raises(SystemExit):
            interruption.record(signal.SIGTERM, None)

    assert (told, stop.value.code) == (True, 143)
