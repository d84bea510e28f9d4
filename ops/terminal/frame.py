"""The frame of every command: a command declares what it needs, and returns what is printed.

A command is a function with a signature for typer, in which two more things may stand:

- A parameter whose type is a dataclass. Each of its fields that is annotated for typer becomes an
  option, and the command gets the dataclass. One that has `opened`, such as `Reads`, `Acts` and
  `Asks` of `segrelay.ops.state.opened`, is opened around the command, and closed before anything is
  printed.
- The return type `Result` gives it the option `--json`, and has the frame print and exit.

Every `--help` and every completion loads this module, so it imports neither pydantic nor structlog.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, Final, get_type_hints

import typer
from typer.models import ParameterInfo

from segrelay.ops.terminal.console import is_all_written, mention, print_json, say, table
from segrelay.ops.terminal.options import ConfigFile, Json, Real
from segrelay.ops.terminal.tables import TableColumns

_CONFIG: Final = "config_file"
_REAL: Final = "on_the_real_redis"
_JSON: Final = "printed_as_json"
_OWN: Final = ((_CONFIG, None, ConfigFile), (_REAL, False, Real))


@dataclass(frozen=True, slots=True)
class Table:
    """A table in the text of a result.

    Args:
        columns: See `segrelay.ops.terminal.tables`.
        rows: Their cells; whole numbers get separators of thousands.
        ill: Numbers of the rows, from 0, that somebody has to look at.
    """

    columns: TableColumns
    rows: Iterable[Sequence[object]]
    ill: Container[int] = ()


class Result:
    """The output of a command, and its exit code.

    Args:
        document: The output with --json.
        text: The lines and tables of the output without it.
        notes: Lines on stderr that are not part of the result.
        exit_code: 1 = something failed or differs.
    """

    def __init__(
        self, document: Any, *text: str | Table, notes: Iterable[str] = (), exit_code: int = 0
    ) -> None:
        self.document = document
        self.text = text
        self.notes = notes
        self.exit_code = exit_code

    def show(self, *, as_json: bool) -> None:
        """Print it; end the command if the exit code is not 0."""
        if as_json:
            print_json(self.document)
        for part in () if as_json else self.text:
            if isinstance(part, Table):
                table(part.columns, part.rows, part.ill)
            else:
                say(part)
        if not is_all_written():  # where both go to one file, a note comes behind the result
            raise typer.Exit(1)
        for note in self.notes:
            mention(note)
        if self.exit_code:
            raise typer.Exit(self.exit_code)


def framed(
    name: str,
    command: Callable[..., Result | None],
    completion: Callable[[str], Callable[[str], list[str]] | None],
) -> Callable[..., None]:
    """Give a command its options, and completions by parameters' names; open, print and exit.

    Args:
        name: The words of the command without `segrelay`, such as `dlq replay`.
        command: See above.
        completion: Returns the completion of a parameter's value by the parameter's name.
    """
    hints = get_type_hints(command, include_extras=True)
    if _CONFIG in hints:
        return command  # type: ignore[return-value] # it is framed already
    groups = {name: kind for name, kind in hints.items() if hasattr(kind, "__dataclass_fields__")}
    own = [*_OWN, (_JSON, False, Json)] if hints.pop("return", None) is Result else _OWN
    parameters = list(_parameters(inspect.signature(command), hints))
    parameters += [_parameter(*each) for each in own]
    for each in parameters:
        for info in getattr(each.annotation, "__metadata__", ()):
            if isinstance(info, ParameterInfo) and info.autocompletion is None:
                info.autocompletion = completion(each.name)

    @wraps(command)
    def called(**given: Any) -> None:
        use_config(given.pop(_CONFIG), real=given.pop(_REAL))
        as_json = given.pop(_JSON, False)
        with ExitStack() as stack:
            for group, kind in groups.items():
                options = {option: given.pop(option) for option in _options_of(kind)}
                if hasattr(kind, "opened"):
                    given[group] = stack.enter_context(kind.opened(name, **options))
                else:
                    given[group] = kind(**options)
            result = command(**given)
        if result is not None:
            result.show(as_json=as_json)

    # typer makes the options from the signature
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


def use_config(path: Path | None, *, real: bool) -> None:
    """Use another configuration, or the real Redis, in this process and its children."""
    if path is not None:
        os.environ["SEGRELAY_CONFIG"] = str(path.absolute())
    if real:
        os.environ["SEGRELAY_SANDBOX"] = "0"


def _parameters(
    signature: inspect.Signature, hints: Mapping[str, Any]
) -> Iterator[inspect.Parameter]:
    for parameter in signature.parameters.values():
        kind = hints[parameter.name]
        if not hasattr(kind, "__dataclass_fields__"):
            yield _parameter(parameter.name, parameter.default, kind)
            continue
        for name, (default, inner) in _options_of(kind).items():
            yield _parameter(name, default, inner)


def _options_of(kind: type) -> dict[str, tuple[Any, Any]]:
    """Return the default and the annotation of each field of a dataclass that is an option."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        one.name: (inspect.Parameter.empty if one.default is MISSING else one.default, hint)
        for one in fields(kind)
        if hasattr(hint := hints[one.name], "__metadata__")
    }


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
