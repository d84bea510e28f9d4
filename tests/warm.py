"""Processes of our own modules that need not load Python again: they are forked from one that has.

Such a process has a group, pipes, signals and an exit status like any other. Half of the time of a
short command is Python's start, and a worker's start is most of what a journey computes. What
depends on the start itself is tested with `subprocess`: in `integration/celery`,
`integration/embedded`, `test_foreign_folder.py` and `test_containers.py`.
"""

import atexit
import errno
import gc
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from segrelay.jsonnet.renderer import Renderer
from segrelay.ops.main import COMMANDS
from segrelay.templates import LYTEMPLATES, SHIPPED_FOLDER
from segrelay.worker.destinations.normalise import load_tables
from tests import processor_time

LENGTH = struct.Struct("!I")
ADDRESS = f"\0segrelay-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or secrets.token_hex(16)}"
"""Of the server; Linux knows it without a file."""
_ASKING = threading.Lock()
STARTED_MODULE = (sys.executable, "-P", "-m")
ALSO_LOADED = (
    "billiard.popen_fork",
    "billiard.sharedctypes",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "kombu.pidbox",
    "kombu.transport.redis",
    "segrelay.ops.run.worker",
    "segrelay.sandbox.lytics.api",
    "segrelay.worker.checks.preview",
    "segrelay.ops.send",
    "segrelay.producer.tasks",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.loops.uvloop",
    "segrelay.worker.node.celery_app",
    "segrelay.worker.node.runtime",
)


class WarmProcess:
    """What `subprocess.Popen` offers, as far as it is used of our own modules.

    Args:
        command: From `own_module`.
        options: Of `Popen`.
    """

    def __init__(
        self,
        command,
        *,
        env=None,
        stdin=None,
        stdout=None,
        stderr=None,
        cwd=None,
        process_group=None,
        start_new_session=False,
    ):
        assert tuple(command[:3]) == STARTED_MODULE
        self.args, self.returncode = command, None
        with ExitStack() as theirs:
            self.stdin, input_ = self._end(theirs, 0, stdin)
            self.stdout, output = self._end(theirs, 1, stdout)
            self.stderr, errors = self._end(
                theirs, 2, output if stderr == subprocess.STDOUT else stderr
            )
            self._state, state = socket.socketpair()
            theirs.callback(state.close)
            request = {
                "module": command[3],
                "arguments": command[4:],
                "env": dict(os.environ if env is None else env),
                "folder": str(cwd or Path.cwd()),
                "group": process_group == 0,
                "session": start_new_session,
            }
            _ask(request, [input_, output, errors, state.fileno()])
        self._told = self._state.makefile("r")
        self.pid = int(self._told.readline())

    @staticmethod
    def _end(theirs, number, wanted):
        """Return our end of a stream, and the descriptor that the process gets."""
        if wanted is None:
            return None, number
        if wanted == subprocess.DEVNULL:
            theirs.callback(os.close, descriptor := os.open(os.devnull, os.O_RDWR))
            return None, descriptor
        if wanted == subprocess.PIPE:
            readable, writable = os.pipe()
            ours, descriptor = (writable, readable) if number == 0 else (readable, writable)
            theirs.callback(os.close, descriptor)
            return os.fdopen(ours, "wb" if number == 0 else "rb"), descriptor
        return None, wanted if isinstance(wanted, int) else wanted.fileno()

    def __del__(self):
        """Close what a test that failed has left open, or a later test fails by the warning."""
        for name in ("stdin", "stdout", "stderr", "_told", "_state"):
            if stream := getattr(self, name, None):
                with suppress(OSError):
                    stream.close()

    def poll(self):
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._state], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            code, seconds = self._told.readline().split()
            self.returncode = int(code)
            processor_time.add(float(seconds))
            self._told.close()
            self._state.close()
        return self.returncode

    def communicate(self, given=b"", timeout=None):
        said = {}
        readers = [
            threading.Thread(target=lambda s=stream: said.update({s: s.read()}))
            for stream in (self.stdout, self.stderr)
            if stream and not stream.closed
        ]
        for reader in readers:
            reader.start()
        if self.stdin and not self.stdin.closed:
            with suppress(BrokenPipeError):
                self.stdin.write(given)
        self._close(self.stdin)
        self.wait(timeout)
        for reader in readers:
            reader.join()
        self._close(self.stdout, self.stderr)
        return said.get(self.stdout), said.get(self.stderr)

    @staticmethod
    def _close(*streams):
        for stream in streams:
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._close(self.stdin, self.stdout, self.stderr)
        self.kill()
        self.wait()


def run(command, given=b"", *, env=None, timeout=120):
    """Run one of our modules to its end; returns what `subprocess.run` does."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with WarmProcess(command, env=env, **pipes) as started:
        output, errors = started.communicate(given, timeout)
    return subprocess.CompletedProcess(command, started.returncode, output, errors)


def _ask(request, descriptors):
    text = json.dumps(request).encode()
    with _ASKING:  # a request whose parts stood between those of another ended the server
        control = _server()
        socket.send_fds(control, [LENGTH.pack(len(text))], descriptors)
        control.sendall(text)


@cache
def _server():
    """Connect to the process from which all others are forked, started by whoever comes first.

    The processes of one run of pytest share it: to load all our commands takes two processor
    seconds. It ends with the last of them.
    """
    while True:
        ours = socket.socket(socket.AF_UNIX)
        with socket.socket(socket.AF_UNIX) as listener:
            if _is_first(listener):
                _start_server(listener)
        try:
            ours.connect(ADDRESS)
        except ConnectionRefusedError:  # another one is about to listen, or has just ended
            ours.close()
            time.sleep(0.01)
        else:
            atexit.register(ours.close)
            return ours


def _is_first(listener):
    try:
        listener.bind(ADDRESS)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    listener.listen(64)
    return True


def _start_server(listener):
    server = subprocess.Popen(
        [*STARTED_MODULE, "tests.warm", str(listener.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=[listener.fileno()],
        start_new_session=True,
    )

    def end():
        with suppress(subprocess.TimeoutExpired):  # others may still use it
            server.wait(0.5)

    atexit.register(end)


class _Server:
    """Forks a process for each request, and tells of its end."""

    def __init__(self, listener):
        self.listener = listener
        self.controls = []
        self.states = {}
        self.woken, self.wakes = socket.socketpair()
        self.woken.setblocking(False)
        self.wakes.setblocking(False)

    def serve(self):
        """Return None when nobody needs more; in a new process, what it has to be."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wakes.fileno())
        while True:
            ready = select.select([self.listener, self.woken, *self.controls], [], [])[0]
            if self.woken in ready:
                self._tell_of_ends()
            for control in [one for one in self.controls if one in ready]:
                request, descriptors = self._request(control)
                if request is None:
                    self.controls.remove(control)
                    control.close()
                elif self._forked(descriptors):
                    return request
            if self.listener in ready:
                self.controls.append(self.listener.accept()[0])
            elif not self.controls:
                return None

    @staticmethod
    def _request(control):
        head, descriptors, _, _ = socket.recv_fds(control, LENGTH.size, 4)
        if not head:
            return None, []
        text = control.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL)
        return json.loads(text), descriptors

    def _forked(self, descriptors):
        """Return True in the new process."""
        *streams, state = descriptors
        pid = os.fork()
        if pid:
            for descriptor in streams:
                os.close(descriptor)
            with suppress(BrokenPipeError):  # whoever asked was killed; others still need us
                os.write(state, f"{pid}\n".encode())
            self.states[pid] = state
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for ours in (self.listener, self.woken, self.wakes, *self.controls):
            ours.close()
        for ours in self.states.values():
            os.close(ours)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(state)
        return True

    def _tell_of_ends(self):
        with suppress(BlockingIOError):
            while self.woken.recv(1_024):
                pass
        with suppress(ChildProcessError):
            while (ended := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, use = ended
                seconds = use.ru_utime + use.ru_stime
                state = self.states.pop(pid)
                with suppress(BrokenPipeError):
                    os.write(state, f"{os.waitstatus_to_exitcode(status)} {seconds}\n".encode())
                os.close(state)


def _load():
    for name in [command.target.partition(":")[0] for command in COMMANDS.values()]:
        importlib.import_module(name)
    for name in ALSO_LOADED:
        importlib.import_module(name)
    load_tables()
    for name in ("enter", "exit", "exit-event"):
        Renderer(SHIPPED_FOLDER, LYTEMPLATES).load(f"insider/{name}.jsonnet")
    gc.collect()
    gc.freeze()


def _become(request):
    if request["session"]:
        os.setsid()
    elif request["group"]:
        os.setpgid(0, 0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    # Those of the server know whether its own files can be sought in, and ask no more.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    module = request["module"]
    sys.argv = [module, *request["arguments"]]
    sys.modules.pop(module, None)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        _end(end.code or 0)
    _end(0)


def _end(code):
    """End as Python does, without taking apart all that is loaded: that is most of a command."""
    threading._shutdown()  # as `multiprocessing` ends its processes
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _load()
    wanted = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if wanted is not None:
        _become(wanted)
