"""`segrelay demo`: the main job on invented people, against the sandbox, with a summary."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ops.cli.console import note, print_json, say, table
from ops.interrupts import interrupted_once
from ops.invented import Happening, happenings, payloads, truth
from ops.rig import Rig
from ops.state.status import read_status
from ops.supervisor import own_command
from worker.errors import OperationsMustAct

LATENCY_SECONDS: Final = 0.02
_SECONDS_AT_MOST: Final = 55.0
_LOOK_SECONDS: Final = 0.25
_SIX: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")


def demo(
    *,
    events: Annotated[
        int, typer.Option(help="How many entrances and exits to invent.", min=1)
    ] = 5_000,
    people: Annotated[int, typer.Option(help="How many people to invent.", min=1)] = 1_500,
    seed: Annotated[int, typer.Option(help="The same seed invents the same events.")] = 7,
    json: Annotated[bool, typer.Option("--json", help="Print one document.")] = False,
) -> None:
    """Invent events, deliver them, and compare what the sandbox holds with what they say."""
    rng = random.Random(seed)  # noqa: S311 - invented people
    happened = happenings(rng, events=events, people=people)
    sent = list(happened)
    rng.shuffle(sent)
    note(f"{events} entrances and exits of {people} invented people, in random order.")
    with (
        interrupted_once(),
        tempfile.TemporaryDirectory(prefix="segrelay-demo-") as folder,
        Rig(Path(folder), sandbox_settings={"latency_seconds": LATENCY_SECONDS}) as rig,
    ):
        outcome = _play(rig, sent, happened)
    if json:
        print_json(outcome.document())
    else:
        _summary(outcome)
    raise typer.Exit(0 if outcome.agrees else 1)


@dataclass(slots=True)
class _Outcome:
    """What the demo came to."""

    seconds: float
    status: dict[str, Any]
    requests: int
    people_with_audiences: int
    wrong: int
    requests_sent_twice: int
    overlaps: int
    events: int
    problems: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Say whether the sandbox holds what the events say, and all is accounted for."""
        status = self.status
        total = sum(status[name] for name in _SIX[1:])
        return not (self.wrong or status["waiting"] or status["dead"] or self.problems) and (
            status["accepted"] == total
        )

    def document(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "agrees": self.agrees,
            "seconds": round(self.seconds, 2),
            "events": self.events,
            **{name: self.status[name] for name in _SIX},
            "skipped_by_reason": self.status["skipped_by_reason"],
            "requests": self.requests,
            "people_with_audiences": self.people_with_audiences,
            "wrong_memberships": self.wrong,
            "requests_sent_twice": self.requests_sent_twice,
            "overlaps": self.overlaps,
            "problems": self.problems,
        }


def _play(rig: Rig, sent: list[Happening], happened: list[Happening]) -> _Outcome:
    begun = time.monotonic()
    note("Redis and the sandbox run; starting a worker.")
    rig.start_worker()
    sending = _Sending(rig, sent)
    problems: list[str] = []
    try:
        sending.start()
        _watch(rig, sending, begun)
    except OperationsMustAct as error:
        problems.append(error.message)
    finally:
        sending.end()
    problems += sending.problems
    seconds = time.monotonic() - begun
    rig.stop_workers()
    held, should = rig.memberships(), truth(happened)
    people = held.keys() | should.keys()
    summary, repeats = rig.sandbox.get("summary"), rig.sandbox.get("repeats")
    return _Outcome(
        seconds=seconds,
        status=read_status(rig.client, rig.settings),
        requests=summary["requests"]["total"],
        people_with_audiences=len(held),
        wrong=sum(held.get(email) != should.get(email) for email in people),
        requests_sent_twice=sum(
            path["again_after_answered"] for path in repeats["requests_with_a_user_again"].values()
        ),
        overlaps=rig.sandbox.get("overlaps")["different"],
        events=len(sent),
        problems=problems,
    )


class _Sending(threading.Thread):
    """Feeds the payloads through `segrelay send`, beside the table."""

    def __init__(self, rig: Rig, sent: list[Happening]) -> None:
        super().__init__(name="send", daemon=True)
        self._given = b"\n".join(payloads(sent)) + b"\n"
        self._process = subprocess.Popen(
            own_command("send", "-", "--json"),
            env=rig.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.problems: list[str] = []

    def run(self) -> None:
        _, told = self._process.communicate(self._given)
        if self._process.returncode:
            self.problems.append(told.decode(errors="replace").strip()[-1_000:])

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()


def _watch(rig: Rig, sending: _Sending, begun: float) -> None:
    """Show the six counts until nothing waits; a live line on a terminal, lines elsewhere."""
    last = 0.0
    while True:
        status = read_status(rig.client, rig.settings)
        elapsed = time.monotonic() - begun
        line = f"{elapsed:5.1f} s  " + "  ".join(f"{name} {status[name]:>6}" for name in _SIX)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        elif elapsed - last >= 1.0 or not last:
            last = elapsed
            note(line)
        if not sending.is_alive() and not status["waiting"]:
            break
        if elapsed > _SECONDS_AT_MOST:
            raise OperationsMustAct(f"After {elapsed:.0f} s {status['waiting']} deliveries wait.")
        time.sleep(_LOOK_SECONDS)
    with suppress(OSError):
        sys.stderr.write("\n" if sys.stderr.isatty() else "")


def _summary(outcome: _Outcome) -> None:
    document = outcome.document()
    rows = [(name.replace("_", " "), document[name]) for name in (*_SIX, "requests")]
    rows += [
        ("seconds", document["seconds"]),
        ("people in an audience", outcome.people_with_audiences),
        ("wrong memberships", outcome.wrong),
        ("overlapping requests", outcome.overlaps),
    ]
    table(("what", "how many"), rows)
    for reason, count in document["skipped_by_reason"].items():
        say(f"skipped as {reason}: {count}")
    for problem in outcome.problems:
        note(problem)
    say(
        "The sandbox holds exactly what the newest events say."
        if outcome.agrees
        else "The sandbox does NOT hold what the newest events say."
    )
