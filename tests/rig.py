"""A whole segrelay in a folder of its own: Redis, sandbox, workers. For tests and benchmarks.

Its configuration is written there, with the tables that the caller adds. Nothing outside the folder
is touched, and everything that was started ends with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import httpx
import orjson

import segrelay.templates as shipped_templates
from segrelay.ops import embedded
from segrelay.ops.run.up import own_command
from segrelay.ops.sandbox import MODULE
from segrelay.ops.state.partitions import ask_each, snapshots, sum_counts
from segrelay.ops.state.waiting import find_streams
from segrelay.ops.terminal.moments import awaited
from segrelay.sandbox.people import AUDIENCES
from segrelay.worker.contract.keys import PartitionKeys, without_lane
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.url import EmbeddedFiles, patience_seconds
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE, Settings, load_settings
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import OperationsMustAct, RedisUnavailable
from tests.waiting import allowed

_END_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 60.0

ProcessStarter = Callable[..., "subprocess.Popen[bytes]"]
"""A function that starts a process: `Popen`, or a faster one for our own modules."""


class SandboxProcess:
    """A sandbox in a child process, which ends with `close` or with this process.

    Args:
        port: 0 takes a free one.
    """

    def __init__(
        self, port: int = 0, *, launch: ProcessStarter = subprocess.Popen, **settings: Any
    ) -> None:
        command = own_module(MODULE, "--port", str(port))
        command += ["--settings", orjson.dumps(settings).decode(), "--until-stdin-ends"]
        self._process = launch(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            self.url = self._read_url()
            self._client = httpx.Client(base_url=self.url, timeout=_REQUEST_SECONDS)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid

    def get(self, path: str, **query: Any) -> Any:
        """Return the report below `/_sandbox/`, e.g. `get("summary")`."""
        answer = self._client.get(f"/_sandbox/{path}", params=query or None)
        answer.raise_for_status()
        return orjson.loads(answer.content)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change switches and return all of them."""
        found: dict[str, Any] = self.post("settings", changes)
        return found

    def reset(self) -> None:
        """Forget everything in the sandbox but its switches."""
        self.post("reset", {})

    def wait(self, timeout_seconds: float) -> int:
        """Wait until the sandbox ends by itself, and return its exit status."""
        return self._process.wait(timeout_seconds)

    def close(self) -> None:
        """End the sandbox's process, and wait for its end."""
        self._client.close()
        self._end()

    def post(self, path: str, value: Any) -> Any:
        """Post a value below `/_sandbox/`, and return the answer."""
        answer = self._client.post(f"/_sandbox/{path}", content=orjson.dumps(value))
        if answer.is_error:
            raise ValueError(answer.json()["error"])
        return orjson.loads(answer.content)

    def _read_url(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise OperationsMustAct(f"the sandbox ended with status {self._process.wait()}")
        return line

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


CONFIGURATION: Final = """\
templates = "{templates}"

[redis]
url = "{redis_url}"
{redis}

[delivery]
{delivery}

[authorizations.insider]
label = "Sandbox"
headers = {{ X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "{token}" }}

[destinations.insider]
api = "insider"
base_url = "{sandbox}"
authorization = "insider"
rate = "{rate}"
{destination}

{triggers}
{more}
"""

_TRIGGER: Final = """
[triggers.{name}]
destination = "insider"
audiences = {audiences}
on = "{on}"
template = "insider/{template}.jsonnet"
url = "/api/user/v1/{path}"
{more}
"""


def _trigger(name: str, template: str, audiences: Sequence[str], more: str = "") -> str:
    """Return the TOML table of a trigger with a shipped template for Insider."""
    path = "attribute/delete" if template == "exit" else "upsert"
    on = template.partition("-")[0]
    return _TRIGGER.format(
        name=name, audiences=list(audiences), on=on, template=template, path=path, more=more
    )


def trigger_pairs(audiences: Sequence[str], pairs: int = 0) -> str:
    """Return TOML tables: triggers for entrances and triggers for exits of audiences.

    Args:
        audiences: The slugs, which are shared out evenly; a pair has the name of its first one.
        pairs: The number of pairs; 0 = one for each audience.
    """
    pairs = pairs or len(audiences)
    shares = [list(audiences[first::pairs]) for first in range(pairs)]
    return "".join(
        _trigger(f"{share[0]}-{on}", on, share) for share in shares for on in ("enter", "exit")
    )


DESTINATION: Final = "insider"
WORKER_READY: Final = b" ready."
"""Text in a worker's log from which on the worker takes work."""
_LOOK_SECONDS: Final = 0.05
_READY_LOOK_SECONDS: Final = 0.01
_STOP_SECONDS: Final = 15.0
_RECEIVER_SECONDS: Final = 60.0
_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Rig:
    """A Redis, a sandbox and workers with their configuration, in one folder.

    Args:
        folder: Empty; holds the configuration, Redis' files and the logs.
        redis_url: The URL of a Redis that somebody else starts and ends.
        more: Further tables of the configuration; SANDBOX stands for the sandbox's URL.
        templates: Texts that replace shipped ones, by their names.
        exit_events: There is a third trigger, for the event of an exit.
        launch: Starts our commands, workers and the sandbox, as `Popen` does.
    """

    folder: Path
    rate: str = "25000/min"
    delivery_lines: str = ""
    redis_lines: str = ""
    redis_url: str = EMBEDDED
    destination_lines: str = ""
    more: str = ""
    token: str = "demo"
    exit_events: bool = True
    audiences: Sequence[str] = AUDIENCES
    sandbox_settings: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    enter_lines: str = ""
    launch: ProcessStarter = subprocess.Popen
    sandbox: SandboxProcess = field(init=False)
    settings: Settings = field(init=False)
    client: Redis = field(init=False)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _log_starts: dict[int, int] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Start Redis and the sandbox, write the configuration."""
        try:
            self.sandbox = self._stack.enter_context(
                SandboxProcess(launch=self.launch, **self.sandbox_settings)
            )
            self._configure()
            self._stack.callback(embedded.stop, self.settings.redis.data_dir)
            self.start_redis()
            self._stack.callback(self.kill_workers)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all that was started, the last one first."""
        self._stack.close()

    def _configure(self) -> None:
        templates = Path(shipped_templates.__file__).parent
        if self.templates:
            templates = self._own_templates(templates)
        exits = ("exit", "exit-event")[: 1 + self.exit_events]
        triggers = [
            _trigger("enter", "enter", self.audiences, self.enter_lines),
            *(_trigger(name, name, self.audiences) for name in exits),
        ]
        path = self.folder / "segrelay.toml"
        path.write_text(
            CONFIGURATION.format(
                templates=templates,
                redis=self.redis_lines,
                redis_url=self.redis_url,
                delivery=self.delivery_lines,
                sandbox=self.sandbox.url,
                rate=self.rate,
                token=self.token,
                destination=self.destination_lines,
                triggers="".join(triggers),
                more=self.more.replace("SANDBOX", self.sandbox.url),
            ),
            encoding="utf-8",
        )
        self.settings = load_settings(path, environ={})

    def _own_templates(self, shipped: Path) -> Path:
        folder = self.folder / "templates"
        shutil.copytree(shipped, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in self.templates.items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which our commands find this rig."""
        return {**os.environ, "SEGRELAY_CONFIG": str(self.settings.source)}

    def start_redis(self) -> None:
        """Start Redis, also again on the same files; a Redis at `redis_url` has to run already."""
        if self.redis_url != EMBEDDED:
            self.client = connect(self.redis_url, away_seconds=patience_seconds(self.redis_url))
            return
        found = embedded.ensure_running(self.settings.redis.data_dir, wait_seconds=30)
        self.client = connect(found.url)

    def ask_redis(self, question: Callable[[Redis], _Answer], *, away: _Answer) -> _Answer:
        """Ask Redis over a connection of its own, and return `away` if Redis does not answer."""
        found = embedded.find(self.settings.redis.data_dir)
        url = found.url if found else self.redis_url
        if url == EMBEDDED:
            return away
        try:
            with closing(connect(url)) as client:
                return question(client)
        except RedisUnavailable:
            return away

    def redis_pid(self) -> int:
        """Return the process id of Redis, or 0 where it does not run."""
        folder = self.settings.redis.data_dir
        runs = EmbeddedFiles(folder).is_locked  # also while it takes long to answer
        found = awaited(lambda: embedded.find(folder) or not runs(), allowed(_END_SECONDS))
        return found.pid if isinstance(found, embedded.EmbeddedRedis) else 0

    def kill_redis(self) -> None:
        """End Redis with SIGKILL."""
        pid = self.redis_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)

    def worker_log(self, number: int) -> Path:
        """Return the path of a worker's log."""
        return self.folder / f"worker-{number}.log"

    def start_worker(self, *options: str, number: int = -1) -> subprocess.Popen[bytes]:
        """Start another worker, or replace the ended worker `number`; its output goes to a log."""
        replaces = number >= 0
        number = number if replaces else len(self.workers)
        log = self.worker_log(number)
        self._log_starts[number] = log.stat().st_size if replaces else 0
        worker = self._started(log, "worker", f"--hostname=worker{number}@%h", *options)
        if replaces:
            self.workers[number] = worker
        else:
            self.workers.append(worker)
        return worker

    def _started(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return self.launch(
                own_command(*arguments),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def is_ready(self, number: int) -> bool:
        """Say whether a worker takes work; the log has the lines of those that it replaces, too."""
        return WORKER_READY in self.worker_log(number).read_bytes()[self._log_starts[number] :]

    def wait_until_ready(self, seconds: float = 60.0, *, since: int = 0) -> None:
        """Wait until the logs of the workers from number `since` on say that they are ready."""
        end = time.monotonic() + allowed(seconds)
        for number in range(since, len(self.workers)):
            log = self.worker_log(number)
            while not self.is_ready(number):
                if time.monotonic() > end or self.workers[number].poll() is not None:
                    raise OperationsMustAct(
                        f"A worker does not start; see {log}:\n{log.read_text('utf-8')[-2000:]}"
                    )
                time.sleep(_READY_LOOK_SECONDS)

    def start_beside(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start another of our commands in a process group of its own; its output goes to a log."""
        started = self._started(self.folder / f"{arguments[0]}.log", *arguments)
        self._stack.callback(kill_group, started)
        return started

    def kill_workers(self) -> None:
        """End every worker's process group with SIGKILL."""
        for worker in self.workers:
            kill_group(worker)

    def stop_workers(self) -> list[int]:
        """Stop every worker gracefully (SIGTERM), and return the exit codes."""
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.send_signal(signal.SIGTERM)
        codes = [worker.wait(allowed(_STOP_SECONDS)) for worker in self.workers]
        self.workers.clear()
        return codes

    def command(
        self, *arguments: str, given: bytes = b"", timeout: float = 120.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one of our commands against this rig, to its end."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with self.launch(own_command(*arguments), env=self.environment, **pipes) as started:
            try:
                output, errors = started.communicate(given, allowed(timeout))
            except BaseException:
                started.kill()
                raise
        return subprocess.CompletedProcess(started.args, started.returncode, output, errors)

    def partitions(self) -> Sequence[PartitionKeys]:
        """Return the partitions of the destination, as Redis has them now."""
        return [PartitionKeys(DESTINATION, p) for p in range(self.settings.redis.partitions)]

    def waiting(self) -> int:
        """Return the number of waiting deliveries."""
        return sum(stream.length for stream in find_streams(self.client, self.partitions()))

    def wait_until_empty(self, seconds: float) -> None:
        """Wait until no delivery of the rig waits."""

        def is_empty() -> bool:  # asking takes no time that the workers would miss
            partitions = self.partitions()
            return not any(ask_each(self.client, partitions, lambda pipe, k: pipe.scard(k.streams)))

        if not awaited(is_empty, seconds, _LOOK_SECONDS):
            raise OperationsMustAct(
                f"After {seconds:.0f} s {self.waiting()} deliveries still wait;"
                f" see the workers' logs in {self.folder}."
            )

    def counts(self) -> dict[str, int]:
        """Return the counts of all partitions and lanes, added up, by their field."""
        found = sum_counts(snapshots(self.client, self.partitions())).get(DESTINATION, {})
        total: Counter[str] = Counter()
        for stored, count in found.items():
            total[without_lane(stored)[1]] += count
        return total

    def memberships(self) -> dict[str, list[str]]:
        """Return the audiences of each person at the sandbox, by email."""
        report = self.sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
        return {email: sorted(held) for email, held in report.items() if held}


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process group with SIGKILL and wait for its leader."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_receiver(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the receiver of webhooks takes connections."""

    def is_over() -> bool:
        with socket.socket() as probe:
            return not probe.connect_ex(("127.0.0.1", port)) or process.poll() is not None

    if not awaited(is_over, _RECEIVER_SECONDS, _LOOK_SECONDS) or process.poll() is not None:
        raise OperationsMustAct("The receiver does not start.")
