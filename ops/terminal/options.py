"""Options that several commands have.

Every `--help` and every completion loads this module, so it imports neither pydantic nor structlog.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from segrelay.worker.contract.words import LIVE
from segrelay.worker.errors import UsageWrong

Timeout = Annotated[
    str, typer.Option(help="Wait no longer than this, e.g. 90s or 15m.", metavar="DURATION")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change and send nothing; show what would be done.")
]
DestinationName = Annotated[str, typer.Option(help="Only of this destination.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for a confirmation.")]
AtMost = Annotated[
    int | None,
    typer.Option(help="Do nothing if it would be more than this.", metavar="N", min=0),
]
All = Annotated[bool, typer.Option("--all", help="Take everything there is.")]
Force = Annotated[
    bool, typer.Option("--force", help="Take also what is older than the ledger remembers.")
]
OlderThanLedger = Annotated[
    bool,
    typer.Option(
        "--older-than-ledger",
        help="Accept also events that are older than delivery.ledger_retention. An exit that came "
        "after them may be forgotten: make sure that they are still true.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 2 for warnings as well.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show the profile's fields too.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Ids, as `list` shows them.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Use this configuration file instead of $SEGRELAY_CONFIG.", metavar="FILE"
    ),
]
Real = Annotated[
    bool,
    typer.Option("--real", help="Work on the real Redis although a sandbox runs in this folder."),
]

_Configured = TypeVar("_Configured")


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Options that narrow each other; without any of them everything is chosen."""

    def refuse_accidental_all(self, ids: Iterable[str] | None, *, everything: bool) -> None:
        """Refuse a command that names neither ids nor a filter, unless it has --all."""
        if not (everything or ids) and self == type(self)():
            examples = ", ".join(f"--{field.name}" for field in fields(self)[:2])
            raise UsageWrong(f"Name ids, a filter ({examples}, …), or --all.")


def configured(kind: str, name: str, known: Mapping[str, _Configured]) -> _Configured:
    """Return the trigger or destination that an option names; refuse an unknown name."""
    if name not in known:
        there = ", ".join(known) or "none"
        raise UsageWrong(f"The configuration has no {kind} {name}; it has: {there}.")
    return known[name]


def object_of(text: str, option: str) -> dict[str, Any]:
    """Return the JSON object in the value of an option."""
    import orjson  # noqa: PLC0415 - `--help` has to be quick

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageWrong(f"{option} is not JSON: {error.msg}.") from error
    if not isinstance(value, dict):
        raise UsageWrong(f"{option} has to be a JSON object.")
    return value


def needs_extra(module: str, extra: str, what: str) -> None:
    """Refuse what can't be done because a package of an extra is not installed.

    Args:
        module: The name of the package's module.
        extra: The name of the extra.
        what: The command or the section of the configuration that needs it.
    """
    if find_spec(module) is None:
        raise UsageWrong(
            f"{what} needs an extra that is not installed: pip install 'segrelay[{extra}]'."
        )


@dataclass(frozen=True, slots=True)
class SendOptions:
    """The options of `segrelay send`."""

    lane: Annotated[str, typer.Option(help="The lane: live or backfill.")] = LIVE
    hooks: Annotated[
        bool | None,
        typer.Option(
            "--hooks/--no-hooks",
            help="Whether Insider may start journeys. By default it may for the live lane, and "
            "not for backfill. A trigger's skip_hook overrules it.",
        ),
    ] = None
    dry_run: DryRun = False
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait until all that was sent is settled, and say what came out.",
        ),
    ] = False
    timeout: Annotated[
        str,
        typer.Option(
            help="Give up this long after the start, whatever is being waited for: Redis, room in "
            "it, or (with --wait) deliveries. For example 90s or 15m.",
            metavar="DURATION",
        ),
    ] = ""
    older_than_ledger: OlderThanLedger = False
    as_json: Json = False
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any event was refused.")
    ] = False
