"""Options that several commands have, and groups of options in dataclasses.

Every `--help` and every completion loads this module, so it imports neither pydantic nor structlog.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import typer
from typer.models import ParameterInfo

from segrelay.worker.errors import UsageWrong

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for a confirmation.")]
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
    typer.Option("--real", help="Work on the real Redis although a rehearsal runs in this folder."),
]

_CONFIG: Final = "config_file"
_REAL: Final = "on_the_real_redis"
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


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of its dataclass parameters.

    A parameter whose type is a dataclass is replaced by the dataclass's fields, with their
    annotations and defaults; the command gets the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if _is_group(kind)}

    @wraps(command)
    def called(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        command(**given)

    return _signed(called, list(_parameters(inspect.signature(command), hints)))


def prepared(
    command: Callable[..., None], completion: Callable[[str], Callable[[str], list[str]] | None]
) -> Callable[..., None]:
    """Give a command the options `--config` and `--real`, and completions by parameters' names."""
    hints = get_type_hints(command, include_extras=True)
    if _CONFIG in hints:
        return command
    for name, hint in hints.items():
        for info in getattr(hint, "__metadata__", ()):
            if isinstance(info, ParameterInfo) and info.autocompletion is None:
                info.autocompletion = completion(name)

    @wraps(command)
    def called(**given: Any) -> None:
        use_config(given.pop(_CONFIG), real=given.pop(_REAL))
        command(**given)

    known = inspect.signature(command).parameters.values()
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in ((_CONFIG, None, ConfigFile), (_REAL, False, Real))
    ]
    return _signed(called, [*(each.replace(annotation=hints[each.name]) for each in known), *own])


def use_config(path: Path | None, *, real: bool) -> None:
    """Use another configuration, or the real Redis, in this process and its children."""
    if path is not None:
        os.environ["SEGRELAY_CONFIG"] = str(path.absolute())
    if real:
        os.environ["SEGRELAY_SANDBOX"] = "0"


def _signed(
    command: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """Replace the signature of a command, from which typer makes its options."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")


def _parameters(signature: inspect.Signature, hints: dict[str, Any]) -> Iterator[inspect.Parameter]:
    for parameter in signature.parameters.values():
        kind = hints[parameter.name]
        if not _is_group(kind):
            yield inspect.Parameter(
                parameter.name, parameter.KEYWORD_ONLY, default=parameter.default, annotation=kind
            )
            continue
        inner = get_type_hints(kind, include_extras=True)
        for one in fields(kind):
            default = parameter.empty if one.default is MISSING else one.default
            yield inspect.Parameter(
                one.name, parameter.KEYWORD_ONLY, default=default, annotation=inner[one.name]
            )
