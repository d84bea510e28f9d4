"""`segrelay audit`: who did what, when, to how many, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Final

import typer

from segrelay.ops.state.opened import Reads, actor_named
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import parse_moment_ms, shown_ms
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.worker.contract.redis.acts import DONE, MOST_ACTS, Act, read_acts
from segrelay.worker.contract.redis.connection import now_ms

_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class ActOptions:
    """Options that narrow each other; none means all acts."""

    what: Annotated[
        str, typer.Option(help='Only acts that begin like this, e.g. "pause" or "dlq".')
    ] = ""
    subject: Annotated[str, typer.Option(help="Only acts on this.")] = ""
    by: Annotated[str, typer.Option(help="Only acts of this person.")] = ""
    since: Annotated[
        str, typer.Option(help="Since 2026-11-24T10:00:00Z, or 2h for two hours ago.")
    ] = ""

    def chosen(self, acts: Iterator[Act], now: int) -> Iterator[Act]:
        """Yield the acts that the options choose."""
        since_ms = parse_moment_ms(self.since, "--since", now_ms=now)
        names = {self.by, actor_named(self.by)}
        for act in acts:
            if (
                act.at_ms >= since_ms
                and act.what.startswith(self.what)
                and self.subject in ("", act.subject)
                and ("" in names or act.by in names)
            ):
                yield act


def audit(
    *,
    options: ActOptions,
    limit: Annotated[int, typer.Option(help="Show at most this many.", min=1)] = _SHOWN,
    relay: Reads,
) -> Result:
    """List the acts of people, such as pauses and replays, with who, when and why.

    The newest comes first.

    The person is $SEGRELAY_ACTOR, or else user and host. Addresses in arguments are masked, and of
    a person's own only what stands before the @ is kept.
    """
    client = relay.client
    acts = list(islice(options.chosen(read_acts(client), now_ms(client)), limit))
    if not acts:
        is_empty = options == ActOptions()
        none = "No act of a person is kept yet."
        return Result([], none if is_empty else "No act that is kept is like this.")
    columns: TableColumns = (
        "who",
        "what",
        "of",
        *number_columns("count"),
        *text_columns("why", "more"),
    )
    return Result(
        [_document(act) for act in acts],
        Table(("at", *columns), [_row(act) for act in acts]),
        notes=[f"--limit shows more; {MOST_ACTS:,} are kept."] if len(acts) == limit else (),
    )


def _document(act: Act) -> dict[str, object]:
    kept = asdict(act)
    return {"at": shown_ms(kept.pop("at_ms"))} | {
        k: v for k, v in kept.items() if k not in {"ends", "key"}
    }


def _row(act: Act) -> tuple[str, ...]:
    more = [f"{name} {value}" for name, value in act.arguments.items()]
    outcome = [] if act.outcome == DONE else [act.outcome]
    return (
        shown_ms(act.at_ms),
        act.by,
        act.what,
        act.subject or "-",
        "-" if act.count is None else f"{act.count:,}",
        act.reason or "-",
        "; ".join([*outcome, *more]) or "-",
    )
