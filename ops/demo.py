"""`segrelay demo`: all three producers on invented people, against the sandbox, with a summary.

The sandbox stands in for both ends: for Lytics, where the people are, and for Insider. A backfill
brings in who is in one audience, webhooks tell of two others meanwhile, and a sync finds who joined
and left the first. In the end Insider has to hold what Lytics holds.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, cast

import orjson
import typer

import segrelay.templates as shipped_templates
from segrelay.ops import embedded
from segrelay.ops.embedded import free_port
from segrelay.ops.run.up import own_command
from segrelay.ops.sandbox import ask
from segrelay.ops.state.partitions import KINDS, Counts
from segrelay.ops.status.standing import read_counts
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
    load_settings,
)
from segrelay.worker.contract.settings.sections import ConsoleSettings
from segrelay.worker.errors import OperationsMustAct

LATENCY_SECONDS: Final = 0.02
_SECONDS_AT_MOST: Final = 120.0
"""Seconds the demo may take: it needs twenty on two idle cores, and more on a busy machine."""
_MOVES_AT_ONCE: Final = 200
_MOVES_WHILE_SHOWN: Final = 3
_MOST_MOVES: Final = 40
"""People who join, and as many who leave, at most."""
_PEOPLE_A_MOVE: Final = 30
"""People at Lytics for each that joins or leaves: a sync asks before it takes out over a tenth."""
_SYNCED, *_TOLD = AUDIENCES
"""The audience of backfill and sync, and the audiences of the webhooks."""
_BEFORE_ANY_SCAN: Final = timedelta(seconds=3)
"""Age of the file: Lytics' clock shows whole seconds, so a scan counts from up to two before it."""
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
    address = f"http://127.0.0.1:{console_port}/"
    with interrupted_once(), tempfile.TemporaryDirectory(prefix="segrelay-demo-") as folder:
        play = _Play(Path(folder), people, console_port)
        with play.running():
            if console:
                mention(f"The console is at {address}: what comes now can be watched there.")
            document = play.run(events)
            if console:
                play.stay(address)
    notes = (
        [] if console else ["`segrelay demo --console` shows all of it in a browser, and stays."]
    )
    exit_code = 0 if document["agrees"] else 1
    return Result(document, *_summary(document), notes=notes, exit_code=exit_code)


class _Play:
    """The acts of the demo, in their order, on a sandbox run in a folder of its own."""

    def __init__(self, folder: Path, people: int, console_port: int) -> None:
        self.folder, self.people = folder, people
        self._ports = [free_port(), free_port(), *([console_port] if console_port else [])]
        self._sandbox, self._webhook = (f"http://127.0.0.1:{port}" for port in self._ports[:2])
        self._inside: set[tuple[int, str]] = set()
        self._chance = random.Random(7)  # noqa: S311 - of invented people
        templates = Path(shipped_templates.__file__).parent
        audiences = orjson.dumps(AUDIENCES).decode()
        text = _CONFIGURATION.format(templates=templates, webhook=self._ports[1], audience=_SYNCED)
        for template, (on, path) in _TRIGGERS.items():
            text += _TRIGGER.format(template=template, on=on, path=path, audiences=audiences)
        if console_port:
            text += _CONSOLE.format(port=console_port)
        source = folder / "segrelay.toml"
        source.write_text(text, encoding="utf-8")
        self._environment = {
            **os.environ, FILE_VARIABLE: str(source), SANDBOX_VARIABLE: self._sandbox
        }  # fmt: skip
        self._settings = load_settings(environ=self._environment)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run `segrelay up --sandbox` in the folder; it ends with the context, or with us."""
        log = self.folder / "up.log"
        with log.open("wb") as output:
            up = subprocess.Popen(
                own_command("up", "--sandbox"),
                env=self._environment | {PARENT_VARIABLE: "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            awaited(
                lambda: up.poll() is not None or all(map(_listens, self._ports)), _START_SECONDS
            )
            if up.poll() is not None or not all(map(_listens, self._ports)):
                raise OperationsMustAct(
                    f"The demo does not start:\n{embedded.tail(log.read_text('utf-8'))}"
                )
            ask(self._sandbox, "settings", {"latency_seconds": LATENCY_SECONDS})
            yield
        finally:
            up.terminate()
            try:
                up.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                up.kill()
                up.wait()
            if up.stdin:
                up.stdin.close()
            embedded.stop(self._settings.redis.data_dir)

    def run(self, events: int) -> dict[str, Any]:
        """Play the demo; return its end, compared with Lytics, as `demo --json` prints it."""
        begun = time.monotonic()
        invented = people_at_lytics(self.people)
        inside = self.people * 2 // 3
        for row in invented[:inside]:
            row["segments"] = [_SYNCED]
        ask(self._sandbox, "lytics/profiles", invented)
        mention(f"Lytics has {self.people} invented people.")
        self._tell(events)
        path = self.folder / "members.ndjson"
        path.write_bytes(b"\n".join(map(orjson.dumps, self._members(_SYNCED))) + b"\n")
        mention(f"Backfill of the {plural(inside, 'member')} of {_SYNCED}, from a file:")
        true_at = (datetime.now(UTC) - _BEFORE_ANY_SCAN).isoformat()
        options = ("--audience", _SYNCED, "--as-of", true_at, "--job", "members")
        self._command("backfill", "start", str(path), *options)
        mention("Sync learns who is in it:")
        self._command("sync", "run", _SYNCED)
        count = min(_MOST_MOVES, self.people // _PEOPLE_A_MOVE)
        moves = dict.fromkeys(self._chance.sample(range(inside, self.people), count), "enter")
        moves |= dict.fromkeys(self._chance.sample(range(inside), count), "exit")
        self._change((person, _SYNCED, change) for person, change in moves.items())
        mention(f"{count} joined and {count} left meanwhile; sync finds them:")
        self._command("sync", "run", _SYNCED)
        with closing(connect(resolve_url(self._settings.redis))) as client:
            counts = self._worked_off(client, begun)
        return self._compared(counts, time.monotonic() - begun)

    def stay(self, address: str) -> None:
        """Keep everything running for the console, with a few moves a second, until Ctrl-C."""
        mention(f"The demo is over. A few people still come and go, until Ctrl-C: {address}")
        with suppress(KeyboardInterrupt):
            while True:
                self._move(_MOVES_WHILE_SHOWN)
                time.sleep(1.0)

    def _members(self, audience: str) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", ask(self._sandbox, "lytics/members", audience=audience))

    def _command(self, *arguments: str) -> None:
        """Run one of our commands, and show its output."""
        ran = subprocess.run(
            own_command(*arguments),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        )
        if ran.returncode:
            raise OperationsMustAct(f"`segrelay {' '.join(arguments[:2])}` has failed.")

    def _tell(self, events: int) -> None:
        """Make people enter and leave the audiences whose changes webhooks report."""
        job = {
            "webhook_url": f"{self._webhook}/v1/lytics",
            "headers": {"x-segrelay-secret": "demo"},
            "segment_ids": _TOLD,
            "batch_requests": True,
            "batch_size": 50,
        }
        ask(self._sandbox, "settings", {"lytics": {"webhook_retry_seconds": 0.2}})
        ask(self._sandbox, "lytics/jobs", job)
        for first in range(0, events, _MOVES_AT_ONCE):
            self._move(min(_MOVES_AT_ONCE, events - first))

    def _move(self, count: int) -> None:
        """Make people enter an audience, or leave it if they are in it."""
        people = self._chance.sample(range(self.people), count)
        members = {(person, self._chance.choice(_TOLD)) for person in people}
        self._change((*one, "exit" if one in self._inside else "enter") for one in members)
        self._inside ^= members

    def _change(self, moves: Iterable[tuple[int, str, str]]) -> None:
        rows = [
            {"uid": f"u{person}", "audience": audience, "change": change}
            for person, audience, change in moves
        ]
        ask(self._sandbox, "lytics/moves", rows)

    def _worked_off(self, client: Redis, begun: float) -> Counts:
        """Show the six counts each second until nothing waits; return them."""
        while True:
            counts = read_counts(client, self._settings)
            told = ask(self._sandbox, "lytics/jobs")["job"]
            elapsed = time.monotonic() - begun
            numbers = "  ".join(f"{kind} {counts.of(kind):>6}" for kind in KINDS)
            mention(f"{elapsed:5.1f} s  {numbers}")
            if told["sent"] == told["events"] and not counts.waiting:
                return counts
            if elapsed > _SECONDS_AT_MOST:
                left = plural(counts.waiting, "delivery", "deliveries")
                raise OperationsMustAct(f"After {elapsed:.0f} s {left} left, and webhooks: {told}.")
            time.sleep(1.0)

    def _compared(self, counts: Counts, seconds: float) -> dict[str, Any]:
        """Compare what Insider holds with what Lytics holds."""
        should: dict[str, list[str]] = {}
        for audience in sorted(AUDIENCES):
            for row in self._members(audience):
                should.setdefault(row["email"], []).append(audience)
        report = ask(self._sandbox, "memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
        held = {email: sorted(audiences) for email, audiences in report.items() if audiences}
        wrong = sum(held.get(one, []) != should.get(one, []) for one in held.keys() | should.keys())
        agrees = not (wrong or counts.dead) and counts.accepted == counts.settled
        return {
            "agrees": agrees,
            "seconds": round(seconds, 2),
            **{kind: counts.of(kind) for kind in KINDS},
            "skipped_by_reason": dict(counts.skipped_by_reason),
            "requests": ask(self._sandbox, "summary")["requests"]["total"],
            "people_with_audiences": len(held),
            "wrong_memberships": wrong,
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
