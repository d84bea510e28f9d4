"""`status --watch` on a real terminal of 80 columns and 24 lines: it never scrolls."""

import fcntl
import os
import pty
import re
import signal
import struct
import termios
from contextlib import contextmanager, suppress

from segrelay.ops.run.up import own_command
from tests.journeys.play import SHORT, Rig, invent, lines, send, start_worker
from tests.waiting import until
from tests.warm import WarmProcess

ROWS, COLUMNS = 24, 80


@contextmanager
def on_a_terminal(*words, environment):
    """Run a command; yield its process, and a function that returns all that it has written."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    os.set_blocking(master, False)
    written = []

    def read():
        with suppress(OSError):  # there is no more yet, or nobody writes any more
            while part := os.read(master, 65_536):
                written.append(part)
        return b"".join(written).decode(errors="replace")

    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    env = environment | {"TERM": "xterm"}
    with WarmProcess(own_command(*words), env=env, **streams, start_new_session=True) as process:
        os.close(slave)
        yield process, read
    os.close(master)


def drawings(written):
    """Return each drawing as its lines: rich goes up to the first line before the next."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-ln-zA-Z]|\x1b\[[0-9;]*m|\r", "\0", written)
    texts = re.split(r"(?=accepted [0-9,]+ = )", plain)[1:]
    return [text.replace("\0", "").split("\n") for text in texts]


def test_watching_shows_rates_problems_and_triggers_without_scrolling(tmp_path):
    _, sent = invent(800, 200)
    with (
        Rig(tmp_path, delivery_lines=SHORT) as rig,
        on_a_terminal("status", "--watch", environment=rig.environment) as (watch, written),
    ):
        until(lambda: "no_worker" in written(), 60)
        start_worker(rig)
        send(rig, lines(sent))
        until(lambda: "All is well." in written(), 60)
        rates = re.compile(r"a second: accepted [0-9,]+, delivered [1-9]")
        until(lambda: rates.search(written()), 60)
        watch.send_signal(signal.SIGINT)
        until(lambda: written() and watch.poll() is not None)
        drawn = drawings(written())

    assert watch.returncode in {0, 130}
    assert len(drawn) >= 3
    assert max(len(one) for one in drawn) <= ROWS
    assert max(len(line) for one in drawn for line in one) <= COLUMNS
    last = "\n".join(drawn[-1])
    assert re.search(r"^insider +ok", last, re.MULTILINE)
    assert re.search(r"^enter +ok", last, re.MULTILINE)
