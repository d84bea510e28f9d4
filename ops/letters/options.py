"""The options by which all commands of `segrelay dlq` choose letters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer
from redis import Redis

from ops.letters.reading import Filter
from ops.state.partitions import all_partitions
from ops.state.person import person_named, read_former_identities
from ops.terminal.moments import parse_moment_ms
from ops.terminal.options import FilterOptions
from worker.contract.keys import PartitionKeys
from worker.contract.redis.claim import learn_numbering
from worker.contract.redis.clock import now_ms
from worker.contract.settings import Settings
from worker.contract.words import Death
from worker.errors import UsageWrong


@dataclass(frozen=True, slots=True)
class LetterOptions(FilterOptions):
    """Options that narrow each other; none means all letters."""

    cause: Annotated[
        list[str] | None,
        typer.Option(
            "--cause", help="Only letters of this cause, as `dlq causes` shows it; repeatable."
        ),
    ] = None
    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    reason: Annotated[str, typer.Option(help="Only with this reason.")] = ""
    profile: Annotated[
        str,
        typer.Option(
            help="Only letters about this person, also those from before a renaming: a value of the"
            " identity field."
        ),
    ] = ""
    since: Annotated[
        str, typer.Option(help="Died since 2026-11-24T10:00:00Z, or 2h for two hours ago.")
    ] = ""
    until: Annotated[str, typer.Option(help="Died before; written like --since.")] = ""

    def chosen(
        self, client: Redis, settings: Settings, ids: Iterable[str] = ()
    ) -> tuple[list[PartitionKeys], Filter]:
        """Return the partitions and the filter that these options stand for."""
        if self.reason and self.reason not in {known.value for known in Death}:
            known = ", ".join(death.value for death in Death)
            raise UsageWrong(f"There is no reason '{self.reason}': {known}.")
        places = all_partitions(client, settings)
        now = now_ms(client)
        digests: frozenset[str] = frozenset()
        if self.profile:
            person = person_named(self.profile, settings, learn_numbering(client, settings))
            people = [person, *read_former_identities(client, places, person.digest)]
            partitions = {each.partition for each in people}
            places = [place for place in places if place.partition in partitions]
            digests = frozenset(each.digest.hex() for each in people)
        return places, Filter(
            ids=frozenset(ids),
            causes=frozenset(self.cause or ()),
            trigger=self.trigger,
            audience=self.audience,
            reason=self.reason,
            digests=digests,
            since_ms=parse_moment_ms(self.since, "--since", now_ms=now),
            until_ms=parse_moment_ms(self.until, "--until", now_ms=now),
        )
