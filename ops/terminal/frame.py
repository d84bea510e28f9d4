"""The frame of every command: a command declares what it needs, and returns what is printed.

A command is a function with a signature for typer, in which two more things may stand:

- A parameter whose type is a dataclass. Each of its fields that is annotated for typer becomes an
  option, and the command gets the dataclass. One that has `opened`, such as `Reads`, `Acts` and
  `Asks` of `segrelay.ops.state.opened`, is opened around the command, and closed before anything is
  printed.
- The return type `Result` gives it the option `--json`, and has the frame print and exit.

Commands are imported when they are called, so that `segrelay --help` and completions are quick; so
this module imports neither pydantic nor structlog.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, dataclass, fields
from functools import cache, wraps
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group
from typer.models import ParameterInfo

from segrelay.ops.terminal.console import (
    is_all_written,
    log_to_stderr,
    mention,
    print_json,
    say,
    table,
)
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
        columns: The columns, see `segrelay.ops.terminal.tables`.
        rows: The rows' cells; whole numbers get separators of thousands.
        ill: The indexes of the rows, from 0, that somebody has to look at.
    """

    columns: TableColumns
    rows: Iterable[Sequence[object]]
    ill: Container[int] = ()


class Result:
    """The output of a command, and its exit code.

    Args:
        document: The output with --json.
        text: The lines and tables of the output without it.
        notes: The lines on stderr that are not part of the result.
        exit_code: The exit code; 1 = something failed or differs.
    """

    def __init__(
        self, document: Any, *text: str | Table, notes: Iterable[str] = (), exit_code: int = 0
    ) -> None:
        self.document = document
        self.text = text
        self.notes = notes
        self.exit_code = exit_code

    def show(self, *, as_json: bool) -> None:
        """Print the result; end the command if the exit code is not 0."""
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


Completed = Mapping[str, Callable[[str], list[str]]]
"""Functions that complete values, by a parameter's name, perhaps behind its section or command."""


def framed(
    words: str, command: Callable[..., Result | None], completed: Completed
) -> Callable[..., None]:
    """Give a command its options, and completions by parameters' names; open, print and exit.

    Args:
        words: The words of the command without `segrelay`, such as `dlq replay`.
        command: The function, whose parameters are what it needs, and which returns a `Result`.
        completed: The completions of parameters' values.
    """
    hints = get_type_hints(command, include_extras=True)
    if _CONFIG in hints:
        return command  # type: ignore[return-value] # it is framed already
    groups = {name: kind for name, kind in hints.items() if hasattr(kind, "__dataclass_fields__")}
    own = [*_OWN, (_JSON, False, Json)] if hints.pop("return", None) is Result else _OWN
    parameters = list(_parameters(inspect.signature(command), hints))
    parameters += [_parameter(*each) for each in own]
    for each in parameters:
        keys = (f"{words} {each.name}", f"{words.partition(' ')[0]} {each.name}", each.name)
        completion = next((completed[key] for key in keys if key in completed), None)
        for info in getattr(each.annotation, "__metadata__", ()):
            if isinstance(info, ParameterInfo) and info.autocompletion is None:
                info.autocompletion = completion

    @wraps(command)
    def called(**given: Any) -> None:
        use_config(given.pop(_CONFIG), real=given.pop(_REAL))
        as_json = given.pop(_JSON, False)
        with ExitStack() as stack:
            for group, kind in groups.items():
                options = {option: given.pop(option) for option in _options_of(kind)}
                if hasattr(kind, "opened"):
                    given[group] = stack.enter_context(kind.opened(words, **options))
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


_COLUMN: Final = 41
"""The width of the left column of the help, in characters."""


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """One line of the table of commands, with the module that implements it.

    Args:
        target: The command as `module:attribute`; a function is one command, a `typer.Typer` a
            group. A function that has a parameter `ctx` takes options that it does not declare
            (`ctx.args`).
        summary: The summary, at most 25 characters, so that the help of the whole program fits one
            screen.
        examples: The command lines that its help shows at its end.
    """

    target: str
    summary: str
    part: str
    examples: tuple[str, ...] = ()

    @property
    def epilog(self) -> str | None:
        """Return the examples as the help shows them."""
        lines = [f"  {one}" for one in self.examples]
        return "\n".join(("\b", "Examples:", *lines)) if lines else None


class Command(TyperCommand):
    """A command whose usage has its arguments without braces, as manuals write them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage, such as `FILE` or `[ID]...`."""
        return [_usage_piece(each) for each in super().collect_usage_pieces(ctx)]


def _usage_piece(piece: str) -> str:
    """Return an argument's piece of the usage without what typer writes around its metavar."""
    required = re.fullmatch(r"\{(.*)\}(\.\.\.)?", piece)
    if required:
        name, dots = required[1], required[2] or ""
        return (name.upper() if name.islower() else name) + dots * (not name.endswith("…"))
    optional = re.fullmatch(r"\[(\[.*|.*\])\](\.\.\.)?", piece)
    if optional:
        return optional[1]
    return piece.upper() if re.fullmatch(r"\[[a-z_]+\]", piece) else piece


class Group(TyperGroup):
    """A group whose help has the whole first sentence of each command."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands into the help."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _first_sentence(each.help or "")) for name, each in found if each]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_sentence(text: str) -> str:
    words = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", words, maxsplit=1)[0]


class LazyGroup(TyperGroup):
    """A group over a table of `LazyCommand`s.

    Attributes:
        table: The commands by their names.
        columns: The parts of the table in the left and in the right column of the help.
        closing: The last lines of the help.
        completed: The completions of parameters' values, see `Completed`.
        instead: Advice for the names of commands that people look for and that there are not.
    """

    table: Mapping[str, LazyCommand] = {}
    columns: tuple[Sequence[str], Sequence[str]] = ((), ())
    closing: Sequence[str] = ()
    completed: Completed = MappingProxyType({})
    instead: Mapping[str, str] = {}
    _only_names: bool = False

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, lazy in self.table.items():
            self.add_command(TyperCommand(name, short_help=lazy.summary, rich_markup_mode=None))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base's signature
        """Import and return a command; None if the table does not have it."""
        if self._only_names:
            return self.commands.get(cmd_name)
        log_to_stderr()
        return _loaded(type(self), cmd_name) if cmd_name in self.table else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first word names, or say what to do instead of it."""
        if args[0] in self.instead and args[0] not in self.table:
            ctx.fail(f"No such command '{args[0]}'. {self.instead[args[0]]}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete the name of a command, without loading anything."""
        self._only_names = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._only_names = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the table in two columns, so that it fits one screen, without loading anything."""
        self.format_usage(ctx, formatter)
        formatter.write(f"  {inspect.cleandoc(self.help or '')}\n\n")
        left, right = (list(self._column(parts)) for parts in self.columns)
        for one, other in zip_longest(left, right, fillvalue=""):
            formatter.write(f"{one:<{_COLUMN}}{other}".rstrip() + "\n")

    def _column(self, parts: Sequence[str]) -> Iterator[str]:
        for part in parts:
            yield f"{part}:"
            for name, lazy in self.table.items():
                if lazy.part == part:
                    yield f"  {name:<10} {lazy.summary}"
        if parts is self.columns[-1]:
            yield from self.closing


@cache
def _loaded(group: type[LazyGroup], name: str) -> Any:
    return load(name, group.table[name], group.completed)


def _frame_all(shell: typer.Typer, words: str, completed: Completed) -> None:
    root = shell.registered_callback
    if root and root.callback:
        root.callback = framed(words, root.callback, completed)
    for command in shell.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        command.cls = Command
        command.callback = framed(f"{words} {name}", command.callback, completed)
    for group in shell.registered_groups:
        assert group.typer_instance is not None
        group.cls = Group
        _frame_all(group.typer_instance, f"{words} {group.name}", completed)


def load(name: str, lazy: LazyCommand, completed: Completed = MappingProxyType({})) -> Any:
    """Import the command that a line of the table names."""
    module, _, attribute = lazy.target.partition(":")
    found = getattr(import_module(module), attribute)
    shell = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        _frame_all(found, name, completed)
        shell.add_typer(
            found,
            name=name,
            cls=Group,
            no_args_is_help=found.info.invoke_without_command is not True,
            epilog=lazy.epilog,
        )
    else:
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        shell.command(
            name,
            cls=Command,
            context_settings=settings if "ctx" in inspect.signature(found).parameters else None,
            epilog=lazy.epilog,
        )(framed(name, found, completed))
    return get_group(shell).commands[name]
