"""A command on a terminal."""

import os
import pty
from contextlib import suppress

from segrelay.ops.run.up import own_command
from tests.warm import WarmProcess


def on_a_terminal(*arguments, meanwhile=None, **environment):
    """Run a command in a pseudo-terminal, and return what stands there.

    Args:
        arguments: The command's words.
        meanwhile: Done while the command asks whether to go on, before it is told yes.
        environment: Variables that are set for it.
    """
    mine, its = pty.openpty()
    env = {name: text for name, text in os.environ.items() if name != "NO_COLOR"} | environment
    with WarmProcess(own_command(*arguments), stdin=its, stdout=its, stderr=its, env=env) as child:
        os.close(its)
        shown = b""
        with suppress(OSError):
            while part := os.read(mine, 4096):
                shown += part
                if meanwhile and b"[y/N]" in shown:
                    meanwhile()
                    meanwhile = None
                    os.write(mine, b"y\n")
        os.close(mine)
        assert child.wait(timeout=120) == 0, shown
    return shown.decode()
