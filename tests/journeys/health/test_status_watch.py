"""`status --watch` on a real terminal of 80 columns and 24 lines: it never scrolls."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading

from segrelay.ops.run.up import own_command
from tests.journeys.play import SHORT, Rig, invent, lines, send, start_worker
from tests.waiting import until

ROWS, COLUMNS = 24, 80


class Terminal:
    """A terminal in which a command runs; it keeps all that is written."""

    def __init__(self, command, environment):
        self.written = ""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command,
            env={**environment, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._master = master
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while True:
            try:
                part = os.read(self._master, 65_536)
            except OSError:
                return
            self.written += part.decode(errors="replace")

    def drawings(self):
        """Return each drawing as its lines: rich goes up to the first line before the next."""
        plain = re.sub(r"\x1b\[[0-9;?]*[a-ln-zA-Z]|\x1b\[[0-9;]*m|\r", "\0", self.written)
        texts = re.split(r"(?=accepted [0-9,]+ = )", plain)[1:]
        return [text.replace("\0", "").split("\n") for text in texts]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(120)
        self._thread.join(5)
        os.close(self._master)
        return code


def test_watching_shows_rates_problems_and_triggers_without_scrolling(tmp_path):
    _, sent = invent(800, 200)
    with Rig(tmp_path, delivery_lines=SHORT) as rig:
        terminal = Terminal(own_command("status", "--watch"), rig.environment)
        until(lambda: "no_worker" in terminal.written, 60)
        start_worker(rig)
        send(rig, lines(sent))
        until(lambda: "All is well." in terminal.written, 60)
        until(
            lambda: re.search(r"a second: accepted [0-9,]+, delivered [1-9]", terminal.written), 60
        )
        assert terminal.end() in {0, 130}

    drawings = terminal.drawings()
    assert len(drawings) >= 3
    assert max(len(one) for one in drawings) <= ROWS
    assert max(len(line) for one in drawings for line in one) <= COLUMNS
    last = "\n".join(drawings[-1])
    assert re.search(r"^insider +ok", last, re.MULTILINE)
    assert re.search(r"^enter +ok", last, re.MULTILINE)
