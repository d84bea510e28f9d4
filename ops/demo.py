"""`segrelay demo`: all three producers on invented people, against the sandbox, with a summary.

The sandbox stands in for both ends: for Lytics, where the people are, and for Insider. A backfill
brings in who is in one audience, webhooks tell of two others meanwhile, and a sync finds who joined
and left the first. In the end Insider has to hold what Lytics holds.
"""

from __future__ import annotations

import math
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

import segrelay.templates as shipped_templates
from segrelay.ops import embedded
from segrelay.ops.embedded import free_port
from segrelay.ops.run.up import own_command
from segrelay.ops.sandbox import got, posted
from segrelay.ops.status.standing import read_counts
from segrelay.ops.status.totals import KINDS
from segrelay.ops.terminal.console import mention
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import awaited
from segrelay.ops.terminal.serving import PARENT_VARIABLE, interrupted_once
from segrelay.ops.terminal.tables import number_columns
from segrelay.sandbox.people import AUDIENCES, people_at_lytics
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import (
    DEFAULT_AUDIENCE_ATTRIBUTE,
    FILE_VARIABLE,
    SANDBOX_VARIABLE,
    Settings,
    load_settings,
)
from segrelay.worker.contract.settings.sections import ConsoleSettings
from segrelay.worker.errors import OperationsMustAct

LATENCY_SECONDS: Final = 0.02
_SECONDS_AT_MOST: Final = 120.0
"""Seconds the demo may take: it needs twenty on two idle cores, and more on a busy machine."""
_LOOK_SECONDS: Final = 0.25
_MOVES_AT_ONCE: Final = 200
_MOVES_WHILE_SHOWN: Final = 3
_MOST_MOVES: Final = 40
"""People who join, and as many who leave, at most."""
_PEOPLE_A_MOVE: Final = 30
"""A sync asks a person about more than a tenth of an audience, which has two thirds of all."""
_SYNCED, *_TOLD = AUDIENCES
"""The audience of backfill and sync, and the audiences of the webhooks."""
_START_SECONDS: Final = 180.0
"""Seconds that all processes together may take to start: on a busy machine, each takes long."""
_STOP_SECONDS: Final = 60.0
_CONFIGURATION: Final = """\
templates = "{templates}"

[authorizations.insider]
headers = {{ X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "demo" }}

[destinations.insider]
api = "insider"
base_url = "https://insider.example.com"
authorization = "insider"
rate = "25000/min"

[lytics]
token = "demo"

[producer.webhook]
listen = "127.0.0.1:{webhook}"
secret = "demo"

[sync.{audience}]
audience = "{audience}"
every = "30d"
"""
_TRIGGER: Final = """
[triggers.{template}]
destination = "insider"
audiences = {audiences}
on = "{on}"
template = "insider/{template}.jsonnet"
url = "/api/user/v1/{path}"
"""
_TRIGGERS: Final = {
    "enter": ("enter", "upsert"),
    "exit": ("exit", "attribute/delete"),
    "exit-event": ("exit", "upsert"),
}
"""For each shipped template of the demo, the direction and the path of its trigger."""
_CONSOLE: Final = """
[console]
listen = "127.0.0.1:{port}"
name = "demo"
colour = "blue"
"""


def demo(
    *,
    events: Annotated[
        int, typer.Option(help="How many entrances and exits webhooks tell of.", min=1)
    ] = 3_000,
    people: Annotated[int, typer.Option(help="How many people to invent.", min=200)] = 1_500,
    console: Annotated[
        bool,
        typer.Option(
            "--console", help="Serve the console meanwhile, and keep all running until Ctrl-C."
        ),
    ] = False,
) -> Result:
    """Backfill, receive and sync invented people, then compare Insider with Lytics."""
    console_port = free_port(ConsoleSettings().port) if console else 0
    with (
        interrupted_once(),
        tempfile.TemporaryDirectory(prefix="segrelay-demo-") as folder,
        _Play(Path(folder), events, people, console_port).running() as play,
    ):
        if console:
            mention(f"The console is at {play.console}: what comes now can be watched there.")
        document = play.run()
        if console:
            play.stay()
    watch = "`segrelay demo --console` shows all of it in a browser, and stays."
    notes = [*document["problems"], *([] if console else [watch])]
    exit_code = 0 if document["agrees"] else 1
    return Result(document, *_summary(document), notes=notes, exit_code=exit_code)


@dataclass
class _Play:
    """The acts of the demo, in their order, on a sandbox run in a folder of its own."""

    folder: Path
    events: int
    people: int
    console_port: int
    webhook_port: int = field(default_factory=free_port)
    sandbox_port: int = field(default_factory=free_port)
    inside: set[tuple[int, str]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    movers: random.Random = field(default_factory=partial(random.Random, 7))
    """The chance by which people move; used by the thread that moves them."""

    @property
    def sandbox(self) -> str:
        """Return the URL of the sandbox."""
        return f"http://127.0.0.1:{self.sandbox_port}"

    @property
    def console(self) -> str:
        """Return the address of the console."""
        return f"http://127.0.0.1:{self.console_port}/"

    @cached_property
    def environment(self) -> dict[str, str]:
        """Return the environment in which our commands work on the demo."""
        source = self.folder / "segrelay.toml"
        return {**os.environ, FILE_VARIABLE: str(source), SANDBOX_VARIABLE: self.sandbox}

    @cached_property
    def settings(self) -> Settings:
        """Return the configuration of the demo, as the commands load it."""
        return load_settings(environ=self.environment)

    @contextmanager
    def running(self) -> Iterator[_Play]:
        """Run `segrelay up --sandbox` in the folder; it ends with the context, or with us."""
        templates = Path(shipped_templates.__file__).parent
        audiences = orjson.dumps(AUDIENCES).decode()
        text = _CONFIGURATION.format(
            templates=templates, webhook=self.webhook_port, audience=_SYNCED
        )
        for template, (on, path) in _TRIGGERS.items():
            text += _TRIGGER.format(template=template, on=on, path=path, audiences=audiences)
        if self.console_port:
            text += _CONSOLE.format(port=self.console_port)
        (self.folder / "segrelay.toml").write_text(text, encoding="utf-8")
        log = self.folder / "up.log"
        with log.open("wb") as output:
            up = subprocess.Popen(
                own_command("up", "--sandbox"),
                env=self.environment | {PARENT_VARIABLE: "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            ports = [self.sandbox_port, self.webhook_port, self.console_port or self.webhook_port]
            ready = awaited(
                lambda: up.poll() is not None or all(map(_listens, ports)), _START_SECONDS
            )
            if not ready or up.poll() is not None:
                raise OperationsMustAct(
                    f"The demo does not start:\n{embedded.tail(log.read_text('utf-8'))}"
                )
            posted(self.sandbox, "settings", {"latency_seconds": LATENCY_SECONDS})
            yield self
        finally:
            up.terminate()
            try:
                up.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                up.kill()
                up.wait()
            if up.stdin:
                up.stdin.close()
            embedded.stop(self.settings.redis.data_dir)

    @cached_property
    def client(self) -> Redis:
        """Return a connection to the demo's Redis."""
        return connect(resolve_url(self.settings.redis))

    @property
    def moves(self) -> int:
        """Return how many people join while nobody tells of it, and how many leave."""
        return min(_MOST_MOVES, self.people // _PEOPLE_A_MOVE)

    def run(self) -> dict[str, Any]:
        """Play the demo; return its end, compared with Lytics, as `demo --json` prints it."""
        begun = time.monotonic()
        invented = people_at_lytics(self.people)
        for row in invented[: self.people * 2 // 3]:
            row["segments"] = [_SYNCED]
        posted(self.sandbox, "lytics/profiles", invented)
        mention(f"Lytics has {self.people} invented people.")
        moving = threading.Thread(target=self._move_and_tell, name="lytics", daemon=True)
        try:
            moving.start()
            self._backfill()
            mention("Sync learns who is in it:")
            self._command("sync", "run", _SYNCED)
            self._join_and_leave()
            mention(f"{self.moves} joined and {self.moves} left meanwhile; sync finds them:")
            self._command("sync", "run", _SYNCED)
            moving.join(_SECONDS_AT_MOST)
            self._work_off(begun)
        except OperationsMustAct as error:
            self.problems.append(error.message)
        return self._compared(time.monotonic() - begun)

    def stay(self) -> None:
        """Keep everything running for the console, with a few moves a second, until Ctrl-C."""
        mention(f"The demo is over. A few people still come and go, until Ctrl-C: {self.console}")
        with suppress(KeyboardInterrupt):
            while True:
                self._move(_MOVES_WHILE_SHOWN)
                time.sleep(1.0)

    def _backfill(self) -> None:
        members = got(self.sandbox, "lytics/members", audience=_SYNCED)
        path = self.folder / "members.ndjson"
        path.write_bytes(b"\n".join(map(orjson.dumps, members)) + b"\n")
        mention(f"Backfill of the {plural(len(members), 'member')} of {_SYNCED}, from a file:")
        options = ("--audience", _SYNCED, "--as-of", "now", "--job", "members")
        self._command("backfill", "start", str(path), *options)

    def _command(self, *arguments: str) -> None:
        """Run one of our commands, and show its output."""
        ran = subprocess.run(
            own_command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        )
        if ran.returncode:
            raise OperationsMustAct(f"`segrelay {' '.join(arguments[:2])}` has failed.")

    def _join_and_leave(self) -> None:
        """Change the first audience at Lytics; no webhook tells of it."""
        rng, first_outside = random.Random(8), self.people * 2 // 3  # noqa: S311 - invented people
        people = {
            "enter": rng.sample(range(first_outside, self.people), self.moves),
            "exit": rng.sample(range(first_outside), self.moves),
        }
        moves = [
            {"uid": f"u{number}", "audience": _SYNCED, "change": change}
            for change, numbers in people.items()
            for number in numbers
        ]
        posted(self.sandbox, "lytics/moves", moves)

    def _move_and_tell(self) -> None:
        """Make people enter and leave the audiences whose changes webhooks report."""
        url = f"http://127.0.0.1:{self.webhook_port}/v1/lytics"
        job = {"webhook_url": url, "headers": {"x-segrelay-secret": "demo"}}
        batches = {"segment_ids": _TOLD, "batch_requests": True, "batch_size": 50}
        posted(self.sandbox, "settings", {"lytics": {"webhook_retry_seconds": 0.2}})
        posted(self.sandbox, "lytics/jobs", job | batches)
        for first in range(0, self.events, _MOVES_AT_ONCE):
            self._move(min(_MOVES_AT_ONCE, self.events - first))
            time.sleep(_LOOK_SECONDS)

    def _move(self, count: int) -> None:
        """Make people enter an audience, or leave it if they are in it."""
        moves = []
        for person in self.movers.sample(range(self.people), count):
            member = (person, self.movers.choice(_TOLD))
            change = "exit" if member in self.inside else "enter"
            self.inside ^= {member}
            moves.append({"uid": f"u{person}", "audience": member[1], "change": change})
        posted(self.sandbox, "lytics/moves", moves)

    def _work_off(self, begun: float) -> None:
        """Show the six counts each second until nothing waits."""
        shown_at = -math.inf
        while True:
            counts = read_counts(self.client, self.settings)
            told = got(self.sandbox, "lytics/jobs").get("job", {})
            elapsed = time.monotonic() - begun
            if elapsed - shown_at >= 1.0:
                shown_at = elapsed
                numbers = "  ".join(f"{kind} {counts.of(kind):>6}" for kind in KINDS)
                mention(f"{elapsed:5.1f} s  {numbers}")
            if told and told["sent"] == told["events"] and not counts.waiting:
                return
            if elapsed > _SECONDS_AT_MOST:
                left = plural(counts.waiting, "delivery", "deliveries")
                raise OperationsMustAct(f"After {elapsed:.0f} s {left} left, and webhooks: {told}.")
            time.sleep(_LOOK_SECONDS)

    def _compared(self, seconds: float) -> dict[str, Any]:
        """Compare what Insider holds with what Lytics holds."""
        should: dict[str, list[str]] = {}
        for audience in AUDIENCES:
            for row in got(self.sandbox, "lytics/members", audience=audience):
                should.setdefault(row["email"], []).append(audience)
        report = got(self.sandbox, "memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
        held = {email: sorted(audiences) for email, audiences in report.items() if audiences}
        wrong = sum(
            held.get(email, []) != sorted(should.get(email, []))
            for email in held.keys() | should.keys()
        )
        counts = read_counts(self.client, self.settings)
        is_right = not (wrong or counts.waiting or counts.dead or self.problems)
        return {
            "agrees": is_right and counts.accepted == counts.settled + counts.waiting,
            "seconds": round(seconds, 2),
            **{kind: counts.of(kind) for kind in KINDS},
            "skipped_by_reason": dict(counts.skipped_by_reason),
            "requests": got(self.sandbox, "summary")["requests"]["total"],
            "people_with_audiences": len(held),
            "wrong_memberships": wrong,
            "problems": self.problems,
        }


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex((embedded.LOOPBACK, port))


def _summary(document: Mapping[str, Any]) -> Iterator[str | Table]:
    names = (*KINDS, "requests", "seconds", "people_with_audiences", "wrong_memberships")
    rows = [(name.replace("_", " "), document[name]) for name in names]
    yield Table(("what", *number_columns("how many")), rows)
    for reason, count in document["skipped_by_reason"].items():
        yield f"skipped as {reason}: {count}"
    holds = "holds exactly" if document["agrees"] else "does NOT hold"
    yield f"Insider {holds} what Lytics holds."
