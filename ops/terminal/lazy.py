"""Commands that are imported when they are called, so that `segrelay --help` is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from segrelay.ops.terminal.console import log_to_stderr
from segrelay.ops.terminal.frame import Result, framed


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """One line of the table of commands, with the module that implements it.

    Args:
        target: `module:attribute`; a function is one command, a `typer.Typer` a group.
        passes_options: A function takes options that it does not declare (`ctx.args`).
        examples: Command lines, shown at the end of its help.
    """

    target: str
    summary: str
    part: str
    passes_options: bool = False
    examples: tuple[str, ...] = ()

    @property
    def epilog(self) -> str | None:
        """Return the examples as the help shows them."""
        lines = [f"  {one}" for one in self.examples]
        return "\n".join(("\b", "Examples:", *lines)) if lines else None


Completed = Mapping[str, Callable[[str], list[str]]]
"""Functions that complete values, by `PARAMETER` or by `SECTION PARAMETER`."""


class LazyGroup(TyperGroup):
    """A group over a table of `LazyCommand`s; subclasses name the table, and what is completed."""

    table: Mapping[str, LazyCommand] = {}
    completed: Completed = MappingProxyType({})
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

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete the name of a command, without loading anything."""
        self._only_names = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._only_names = False

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - see above
        """Write the table into the help, without loading anything."""
        for part in dict.fromkeys(lazy.part for lazy in self.table.values()):
            rows = [(name, lazy.summary) for name, lazy in self.table.items() if lazy.part == part]
            with formatter.section(part):
                formatter.write_dl(rows)


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
        command.callback = _framed(f"{words} {name}", command.callback, section, completed)
    for group in shell.registered_groups:
        assert group.typer_instance is not None
        _frame_all(group.typer_instance, f"{words} {group.name}", section, completed)


def _framed(
    words: str, command: Callable[..., Result | None], section: str, completed: Completed
) -> Callable[..., None]:
    def completion(name: str) -> Callable[[str], list[str]] | None:
        return completed.get(f"{section} {name}", completed.get(name))

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
            help=lazy.summary,
            no_args_is_help=found.info.invoke_without_command is not True,
            epilog=lazy.epilog,
        )
    else:
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        shell.command(
            name, context_settings=settings if lazy.passes_options else None, epilog=lazy.epilog
        )(_framed(name, found, name, completed))
    return get_group(shell).commands[name]
