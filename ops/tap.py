"""`segrelay tap`: the ends of deliveries as they come, from the outcome log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Final, Self

import orjson
import typer

from segrelay.ops.outcomes.commands import document_of
from segrelay.ops.outcomes.reading import LogFollower
from segrelay.ops.state.acts import Reads
from segrelay.ops.state.person import is_digest, person_named
from segrelay.ops.terminal.console import is_all_written, mention, say
from segrelay.ops.terminal.moments import parse_seconds, shown_ms
from segrelay.ops.terminal.options import DestinationName, configured
from segrelay.worker.contract.outcomes import RETRY, OutcomeRow
from segrelay.worker.contract.printable import json_text, plural
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import RedisUnavailable, UsageWrong

OUTCOMES: Final = ("delivered", "skipped", "dead", "discarded", RETRY)
_LONGEST_SECONDS: Final = 3_600.0
_LOOK_SECONDS: Final = 0.25
_SHOWN_DIGEST: Final = 8


@dataclass(frozen=True, slots=True)
class TapOptions:
    """Options that narrow each other; without any of them everything is shown."""

    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    destination: DestinationName = ""
    outcome: Annotated[
        str, typer.Option(help=f"Only outcomes of this kind: {', '.join(OUTCOMES)}.")
    ] = ""
    person: Annotated[
        str, typer.Option(help="Only of this person: a value of the identity field, or a digest.")
    ] = ""
    text: Annotated[str, typer.Option(help="Only with this text in what is shown.")] = ""

    def chosen(self, settings: Settings) -> Self:
        """Return the options with the digest of the person that they name.

        Raises:
            UsageWrong: There is no such trigger, destination or outcome.
        """
        if self.outcome and self.outcome not in OUTCOMES:
            raise UsageWrong(f"--outcome {self.outcome}: write one of {', '.join(OUTCOMES)}.")
        if self.trigger:
            configured("trigger", self.trigger, settings.triggers)
        if self.destination:
            configured("destination", self.destination, settings.destinations)
        person = self.person.lower()
        if person and not is_digest(person):
            person = person_named(self.person, settings).digest.hex()
        return replace(self, person=person)

    def wants(self, row: OutcomeRow) -> bool:
        """Say whether a row is shown."""
        return (
            self.trigger in {"", row.trigger}
            and self.audience in {"", row.audience}
            and self.destination in {"", row.destination}
            and self.outcome in {"", row.outcome}
            and self.person in {"", row.person}
            and self.text.casefold() in line_of(row).casefold()
        )


def tap(
    *,
    options: TapOptions,
    for_: Annotated[
        str, typer.Option("--for", help="End after this, e.g. 15s or 5m; at most 1h.")
    ] = "1m",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each row as a line of JSON.")
    ] = False,
    relay: Reads,
) -> None:
    """Show how deliveries end, as they do: a line for each, from the outcome log.

    It ends by itself, or with Ctrl-C. People are digests; `segrelay why DIGEST` says more.
    """
    seconds = parse_seconds(for_, "--for")
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageWrong(f"--for {for_}: write up to 1h, such as 15s or 5m.")
    wanted = options.chosen(relay.settings)
    count = 0
    with suppress(KeyboardInterrupt):
        for row in _followed(LogFollower(relay.client, relay.settings), seconds):
            if wanted.wants(row):
                count += 1
                if as_json:
                    sys.stdout.write(json_text(orjson.dumps(document_of(row))) + "\n")
                else:
                    say(line_of(row))
    if is_all_written():
        mention(f"{plural(count, 'row')} shown.")


def _followed(log: LogFollower, seconds: float) -> Iterator[OutcomeRow]:
    """Yield the rows that come for so long. A Redis that is away for a while does not end it."""
    ends_at = time.monotonic() + seconds
    while is_all_written():
        is_last = time.monotonic() >= ends_at
        try:
            yield from log.look()
        except RedisUnavailable as error:
            mention(error.message)
        if is_last:
            return
        time.sleep(max(0.0, min(_LOOK_SECONDS, ends_at - time.monotonic())))


def line_of(row: OutcomeRow) -> str:
    """Return a row as a line, the fixed parts first."""
    what = f"{row.direction} {row.audience} for {row.trigger}"
    parts = (shown_ms(row.time_ms)[11:23], what, row.person[:_SHOWN_DIGEST], detail_of(row))
    return "  ".join(part for part in parts if part)


def detail_of(row: OutcomeRow) -> str:
    """Return the part of a line that says how the delivery ended."""
    parts = (row.outcome, row.reason, row.status, row.message)
    return " ".join(str(part) for part in parts if part)
