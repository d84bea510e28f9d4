"""What a trigger that doesn't go on costs the others: `python -m ops.bench.beside --events 20000`.

The same events are drained three times: as usual, beside 100,000 deliveries of a paused trigger,
and while the URL of one trigger fails. Prints how long all others took each time, as JSON.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from ops.bench.gate import start_workers
from ops.invented import Happening, happenings, payloads
from ops.rig import Rig
from ops.state.status import read_status
from producer.publish import Publisher
from worker.errors import SegrelayError

_EXITS: Final = "/api/user/v1/attribute/delete"
_BLOCK: Final = 5_000
_TRIED_AT_MOST: Final = 64
"""People with whom a failing trigger was tried lately: what else happened to them waits, too."""
_MOST_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One way in which a trigger doesn't go on.

    Args:
        beside: Happenings whose deliveries are accepted first.
        is_paused: The trigger `exit` is.
        failures: Of the sandbox.
    """

    beside: list[Happening]
    is_paused: bool
    failures: list[dict[str, Any]]


def seconds_of(obstacle: Obstacle, happened: list[Happening]) -> float:
    """Accept everything, and drain until only the trigger `exit` has something left."""
    settings = {"latency_seconds": 0.02, "failures": obstacle.failures}
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        Rig(
            Path(folder), exit_events=False, delivery_lines='late = "5s"', sandbox_settings=settings
        ) as rig,
    ):
        if obstacle.is_paused:
            rig.command("pause", "trigger:exit").check_returncode()
        publisher = Publisher(rig.client, rig.settings)
        for block in batched_payloads([*obstacle.beside, *happened]):
            publisher.publish(block)
        begun = time.monotonic()
        start_workers(rig)
        _wait_until(lambda: _waiting_of(rig, "enter") <= _TRIED_AT_MOST)
        return time.monotonic() - begun


def batched_payloads(happened: list[Happening]) -> list[list[bytes]]:
    """Return the payloads in blocks that are published at once."""
    made = list(payloads(happened, profile_bytes=300))
    return [made[at : at + _BLOCK] for at in range(0, len(made), _BLOCK)]


def _waiting_of(rig: Rig, trigger: str) -> int:
    return int(read_status(rig.client, rig.settings)["triggers"][trigger]["waiting"])


def _wait_until(is_over: Callable[[], bool]) -> None:
    end = time.monotonic() + _MOST_SECONDS
    while not is_over():
        if time.monotonic() > end:
            raise SegrelayError("The other triggers are not done within ten minutes.")
        time.sleep(_LOOK_SECONDS)


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--beside", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)  # noqa: S311 - invented people
    happened = happenings(rng, events=asked.events, people=asked.events // 2)
    many = happenings(rng, events=2 * asked.beside, people=asked.events)
    exits = [event for event in many if event.is_exit]
    cases = {
        "usual": Obstacle([], is_paused=False, failures=[]),
        "beside_paused": Obstacle(exits, is_paused=True, failures=[]),
        "beside_failing": Obstacle([], is_paused=False, failures=[{"status": 500, "path": _EXITS}]),
    }
    report = {name: round(seconds_of(case, happened), 1) for name, case in cases.items()}
    sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
