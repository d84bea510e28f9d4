"""`segrelay discard`: taking back what waits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from segrelay.ops.kept import (
    ChoosingOptions,
    ExtentOptions,
    Filter,
    Kept,
    Work,
    discard_chosen,
)
from segrelay.ops.state.acts import Asks
from segrelay.ops.state.partitions import Stream, all_partitions
from segrelay.ops.state.waiting import (
    count_chosen,
    find_streams,
    measure,
    take_back,
)
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import DestinationName
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import UsageWrong


class Waiting(Kept):
    """The deliveries that wait, as a store of kept things."""

    command = "discard"
    nouns = ("waiting delivery", "waiting deliveries")

    def discard(self, wanted: Filter) -> Work:
        """Return the work of taking back the deliveries that match."""
        streams = measure(self.client, self.streams(wanted))
        count = count_chosen(self.client, streams, wanted)
        return Work(count, lambda: take_back(self.client, self.settings, streams, wanted))

    def streams(self, wanted: Filter) -> list[Stream]:
        """Return the streams that hold deliveries which may match."""
        return find_streams(self.client, all_partitions(self.client, self.settings), wanted)


@dataclass(frozen=True, slots=True)
class WaitingOptions(ChoosingOptions):
    """Options that narrow each other."""

    job: Annotated[str, typer.Option(help="Only what this job has published.")] = ""
    destination: DestinationName = ""
    trigger: Annotated[str, typer.Option(help="Only what waits for this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only what is about this audience.")] = ""

    def refuse_accidental_all(self, ids: Iterable[str] | None, *, everything: bool) -> None:
        """Refuse a command that names nothing and does not say --all; entries have no ids."""
        if not (everything or ids) and self == WaitingOptions():
            raise UsageWrong("Name --job, --destination, --trigger or --audience, or say --all.")

    def chosen(
        self, client: Redis, settings: Settings, ids: Iterable[str] | None, *, force: bool = False
    ) -> Filter:
        """Return the filter that these options stand for."""
        del client, settings, ids, force
        return Filter(**asdict(self))


def discard(*, options: WaitingOptions, extent: ExtentOptions, relay: Asks) -> Result:
    """Take back deliveries that are waiting; they are counted as discarded.

    Several options narrow each other. A worker may still send what it has read already. `segrelay
    dlq discard` is for dead letters, `segrelay quarantine discard` for what could not be placed.
    """
    return discard_chosen(relay, Waiting(relay.client, relay.settings), options, extent)
