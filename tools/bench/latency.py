"""The time from a live event's request at the receiver until Insider has the person.

It is measured idle, beside a backfill that is only drained, and beside one that is read and drained
meanwhile; the backfill's rate is measured with live events, and without them.
"""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from segrelay.ops.embedded import free_port
from segrelay.sandbox.people import AUDIENCES, happenings, payloads
from segrelay.worker.errors import OperationsMustAct
from tests.rig import Rig, wait_for_receiver
from tools.bench.intake import RECEIVER, SECRET
from tools.bench.rigs import FIRST_LIVE_PERSON, bench_rig, live_payload, write_lines

Beside = Literal["nothing", "drained", "read"]

_FIELDS: Final = 30
_PEOPLE_FOR_AN_EVENT: Final = 10
_PER_SECOND: Final = 15.0
_IDLE_EVENTS: Final = 900
_QUIET_SECONDS: Final = 1.0
"""The seconds between the start of a worker and the first event."""
_STARTING_SECONDS: Final = 2.0
"""The seconds of draining before the first live event, in which the worker's processes start."""
_MOST_SECONDS: Final = 600.0
_ARRIVES_SECONDS: Final = 30.0


def live_events(*, events: int, beside: Beside = "nothing", live: bool = True) -> dict[str, Any]:
    """Measure live events at random moments, 15 a second on average, until a backfill is delivered.

    Args:
        events: Number of the backfill's events.
        beside: Nothing, a backfill that was accepted before, or one that is read meanwhile.
        live: False to measure the backfill's rate alone.
    """
    port = free_port()
    with bench_rig(more=RECEIVER.format(port=port, secret=SECRET)) as rig:
        source = _write_backfill(rig.folder, 0 if beside == "nothing" else events)
        wait_for_receiver(port, rig.start_beside("serve"))
        if beside == "drained":
            _read(rig, source)
        rig.start_worker()
        rig.wait_until_ready()
        found: dict[str, Any] = {}
        time.sleep(0.0 if beside == "drained" else _QUIET_SECONDS)
        begun = time.monotonic()
        time.sleep(_STARTING_SECONDS if beside == "drained" else 0.0)
        with _sending(_LiveSender(port), live=live) as sender:
            if beside == "nothing":
                time.sleep(_IDLE_EVENTS / _PER_SECOND)
            else:
                if beside == "read":
                    _read(rig, source)
                    found["read_seconds"] = round(time.monotonic() - begun, 1)
                rig.wait_until_empty(_MOST_SECONDS)
                seconds = time.monotonic() - begun
                found |= {
                    "seconds": round(seconds, 2),
                    "events_per_second": round(events / seconds),
                }
        return found | (_summary(rig, sender.sent) if live else {})


def _write_backfill(folder: Path, events: int) -> Path:
    """Write rows with events of invented people, in the order of their times."""
    chance = Random(1)  # noqa: S311 - invented people
    path = folder / "backfill.ndjson"
    happened = happenings(chance, events=events, people=max(1, _PEOPLE_FOR_AN_EVENT * events))
    write_lines(path, payloads(happened, fields=_FIELDS))
    return path


def _read(rig: Rig, source: Path) -> None:
    """Read the backfill with `segrelay backfill start`, to its end."""
    read = rig.command("backfill", "start", str(source), "--json", timeout=_MOST_SECONDS)
    if read.returncode:
        raise OperationsMustAct(read.stderr.decode())


@dataclass(slots=True)
class _LiveSender:
    """Posts live events at random moments, each in a request of its own.

    The moments are drawn beforehand: a slow answer makes no later event wait, as each has a thread
    and a connection. Connections are used again in turn, so none is idle until the receiver closes
    it. The client does little, since its time is part of what is measured.

    Attributes:
        sent: By person, the time of the request and the seconds until it was answered.
        failed: Why events were not accepted.
    """

    port: int
    sent: dict[str, tuple[float, float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    _unused: queue.SimpleQueue[HTTPConnection] = field(default_factory=queue.SimpleQueue)

    def run(self) -> None:
        """Post events until it is stopped."""
        chance = Random(2)  # noqa: S311 - invented moments
        threads: list[threading.Thread] = []
        due = time.monotonic()
        person = FIRST_LIVE_PERSON
        while not self.stopped.wait(max(0.0, due - time.monotonic())):
            due += chance.expovariate(_PER_SECOND)
            person += 1
            threads.append(threading.Thread(target=self._try, args=(person,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        while not self._unused.empty():
            self._unused.get().close()

    def _try(self, person: int) -> None:
        try:
            self._post(person)
        except (OSError, HTTPException, OperationsMustAct) as error:
            self.failed.append(str(error))

    def _post(self, person: int) -> None:
        email, body = live_payload(person, AUDIENCES[person % len(AUDIENCES)], _FIELDS)
        try:
            connection = self._unused.get_nowait()
        except queue.Empty:
            connection = HTTPConnection("127.0.0.1", self.port)
        begun = time.time()
        connection.request("POST", "/v1/lytics", body, {"X-Segrelay-Secret": SECRET})
        answer = connection.getresponse()
        seconds = time.time() - begun
        answer.read()
        if answer.status != HTTPStatus.OK:
            raise OperationsMustAct(f"The receiver answered a live event with {answer.status}.")
        self.sent[email] = begun, seconds
        self._unused.put(connection)


@contextmanager
def _sending(sender: _LiveSender, *, live: bool) -> Iterator[_LiveSender]:
    """Send live events for the duration of the block.

    Raises:
        OperationsMustAct: Some were not accepted, so the others would not be measured beside them.
    """
    thread = threading.Thread(target=sender.run)
    if live:
        thread.start()
    try:
        yield sender
    finally:
        sender.stopped.set()
        if live:
            thread.join()
    if sender.failed:
        raise OperationsMustAct(f"{len(sender.failed)} live events failed: {sender.failed[0]}")


def _summary(rig: Rig, sent: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Return the percentiles of the seconds until Insider had the people of live events.

    Raises:
        OperationsMustAct: The backfill was over before there were two live events.
    """
    if len(sent) < 2:  # noqa: PLR2004 - percentiles need two
        raise OperationsMustAct("The backfill was over too soon; give more --events.")
    rig.wait_until_empty(_ARRIVES_SECONDS)
    total, answered = [], []
    for email, (at, seconds) in sorted(sent.items(), key=lambda each: each[1]):
        arrived = rig.sandbox.get("profile", email=email)["updated_at"]
        total.append(arrived - at)
        answered.append(seconds)
    after = [whole - part for whole, part in zip(total, answered, strict=True)]
    return {
        "live_events": len(total),
        "until_arrived": _percentiles(total),
        "until_answered": _percentiles(answered),
        "from_answer_to_arrival": _percentiles(after),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "p50_ms": round(1000 * percentiles[49], 1),
        "p90_ms": round(1000 * percentiles[89], 1),
        "p99_ms": round(1000 * percentiles[98], 1),
        "most_ms": round(1000 * max(seconds), 1),
    }
