"""Commands that are imported when they are called, so that `segrelay --help` is quick."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from segrelay.ops.terminal.console import log_to_stderr
from segrelay.ops.terminal.frame import Result, framed

_COLUMN: Final = 41
"""The width of the left column of the help, in characters."""


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """One line of the table of commands, with the module that implements it.

    Args:
        target: `module:attribute`; a function is one command, a `typer.Typer` a group. A function
            that has a parameter `ctx` takes options that it does not declare (`ctx.args`).
        summary: At most 25 characters, so that the help of the whole program fits one screen.
        examples: Command lines, shown at the end of its help.
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


Completed = Mapping[str, Callable[[str], list[str]]]
"""Functions that complete values, by `PARAMETER` or by `SECTION PARAMETER`."""


class LazyGroup(TyperGroup):
    """A group over a table of `LazyCommand`s.

    Attributes:
        table: The commands by their names.
        columns: The parts of the table in the left and in the right column of the help.
        closing: The last lines of the help.
        completed: The completions; see above.
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


def _frame_all(shell: typer.Typer, words: str, section: str, completed: Completed) -> None:
    root = shell.registered_callback
    if root and root.callback:
        root.callback = _framed(words, root.callback, section, completed)
    for command in shell.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        command.cls = Command
        command.callback = _framed(f"{words} {name}", command.callback, section, completed)
    for group in shell.registered_groups:
        assert group.typer_instance is not None
        group.cls = Group
        _frame_all(group.typer_instance, f"{words} {group.name}", section, completed)


def _framed(
    words: str, command: Callable[..., Result | None], section: str, completed: Completed
) -> Callable[..., None]:
    def completion(name: str) -> Callable[[str], list[str]] | None:
        keys = (f"{words} {name}", f"{section} {name}", name)
        return next((completed[key] for key in keys if key in completed), None)

    return framed(words, command, completion)


def load(name: str, lazy: LazyCommand, completed: Completed = MappingProxyType({})) -> Any:
    """Import the command that a line of the table names."""
    module, _, attribute = lazy.target.partition(":")
    found = getattr(import_module(module), attribute)
    shell = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        _frame_all(found, name, name, completed)
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
        )(_framed(name, found, name, completed))
    return get_group(shell).commands[name]
