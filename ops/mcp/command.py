"""`segrelay mcp`: tools for a program by the Model Context Protocol, each one of our commands.

A tool that looks runs its command here and returns the document of its result, so it masks and
refuses as the command does. What changes something is offered with `--actions` only, and is
started as the console starts it: with a reason, and with a number where it can't be undone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import orjson
import typer
from anyio import to_thread
from typer.exceptions import TyperException

from segrelay.ops.console.acts import (
    ACTS,
    ConsoleAct,
    StartedCommands,
    command_of,
    parameters_of,
)
from segrelay.ops.console.rights import OPERATOR, Person
from segrelay.ops.main import app
from segrelay.ops.state.opened import actor
from segrelay.ops.terminal.console import TAKEN
from segrelay.ops.terminal.options import needs_extra
from segrelay.worker.contract.printable import json_text
from segrelay.worker.errors import SegrelayError, UsageWrong

if TYPE_CHECKING:
    import mcp_types as types

_LONGEST_TEXT: Final = 60_000
"""The characters of an answer: a model reads it whole, and pays for it."""
_ACT_SECONDS: Final = 600.0

_INSTRUCTIONS: Final = (
    "segrelay carries entrances and exits of audiences from the Lytics CDP to Insider. Begin with"
    " `problems`, then `status`. Each problem names the command that shows or mends it. `why` tells"
    " everything about one person. Fields of profiles are masked."
)


LOOKS: Final[Mapping[str, ConsoleAct]] = {
    "problems": ConsoleAct(
        "status", "Tell what is wrong now, as `status` does.", flags=("--check", "--attention")
    ),
    "status": ConsoleAct("status"),
    "why": ConsoleAct("why", arguments=("profile",)),
    "dead_letter_causes": ConsoleAct("dlq causes"),
    "dead_letters": ConsoleAct("dlq list"),
    "dead_letter": ConsoleAct("dlq show", arguments=("id",)),
    "quarantine": ConsoleAct("quarantine list"),
    "jobs": ConsoleAct("backfill status"),
    "syncs": ConsoleAct("sync status"),
    "acts": ConsoleAct("audit"),
}
"""The tools that change nothing, by their names; one without a title has its command's help."""


def _schema_of(parameter: Any) -> dict[str, Any]:
    """Return the schema of a field, as the command's own parameter has it."""
    number = "integer" if parameter.type_descriptor.annotation is int else "string"
    kind = "boolean" if getattr(parameter, "is_flag", False) else number
    is_list = parameter.multiple or parameter.nargs == -1
    schema = {"type": "array", "items": {"type": kind}} if is_list else {"type": kind}
    return schema | {"description": parameter.help or ""}


def _tool(name: str, act: ConsoleAct) -> types.Tool:
    import mcp_types as types  # noqa: PLC0415 - of an extra

    looks, known = name in LOOKS, parameters_of(act)
    description = act.title or command_of(act).help
    names = list(act.fields)
    if not looks:
        names += ["why", *["all", "dry-run"] * act.has_dry_run, *["at-most"] * act.is_destructive]
        choose = " Choose by a filter, or say `all`." if act.has_dry_run else ""
        description = f"{act.title}. The audit keeps who did it and why.{choose}"
    schema = {
        "type": "object",
        "properties": {one.replace("-", "_"): _schema_of(known[one]) for one in names},
        "required": [*act.needed, *(() if looks else ("why",))],
        "additionalProperties": False,
    }
    hints = types.ToolAnnotations(
        read_only_hint=looks, destructive_hint=act.is_destructive, open_world_hint=False
    )
    return types.Tool(name=name, description=description, input_schema=schema, annotations=hints)


class Tools:
    """Runs the tools that a program calls.

    Args:
        with_acts: True if there are tools that change something, too.
    """

    def __init__(self, *, with_acts: bool) -> None:
        acts = {name.replace(" ", "_"): act for name, act in ACTS.items()} if with_acts else {}
        self._tools = {**LOOKS, **acts}
        self._started = StartedCommands()
        self._person = Person(f"{actor()} by mcp", frozenset({OPERATOR}))

    def listed(self) -> list[types.Tool]:
        """Return the tools, with what they take and whether they change something."""
        return [_tool(name, act) for name, act in self._tools.items()]

    def call(self, name: str, given: Mapping[str, Any]) -> str:
        """Run a tool and return its answer, as JSON or plain text.

        Raises:
            SegrelayError: It is refused, or has failed.
        """
        if name not in self._tools:
            raise UsageWrong(f"There is no tool {name!r}.")
        return _look(LOOKS[name], given) if name in LOOKS else self._act(self._tools[name], given)

    def end(self) -> None:
        """Interrupt the acts that are under way, and wait for their end."""
        self._started.end()

    def _act(self, act: ConsoleAct, given: Mapping[str, Any]) -> str:
        values = _values(act, given)
        if act.has_dry_run and not values and given.get("all") is not True:
            raise UsageWrong("Nothing is chosen: give ids or a filter, or `all`: true.")
        started = self._started.start(
            self._person,
            act,
            values,
            reason=str(given.get("why", "")),
            is_dry_run=bool(given.get("dry_run")),
            at_most=given.get("at_most"),
        )
        ends_at = time.monotonic() + _ACT_SECONDS
        while not started.is_over and time.monotonic() < ends_at:
            time.sleep(0.1)
        lines = list(started.lines)[-20:]
        if started.code is None:
            raise UsageWrong(f"`{started.command}` goes on; look at the status later.")
        if started.code:
            raise UsageWrong("\n".join(lines) or f"It failed with exit code {started.code}.")
        return _fitted({"command": started.command, "result": started.document, "said": lines})


def _look(look: ConsoleAct, given: Mapping[str, Any]) -> str:
    """Run a command here, and return the document that it would print."""
    taken: list[Any] = []
    token = TAKEN.set(taken)
    try:
        app(look.words(_values(look, given), *look.flags, "--json"), standalone_mode=False)
    except TyperException as error:
        raise UsageWrong(error.format_message()) from None
    finally:
        TAKEN.reset(token)
    return _fitted(taken[0])


def _values(act: ConsoleAct, given: Mapping[str, Any]) -> dict[str, list[str]]:
    return act.values(
        {
            name: [str(one) for one in (value if isinstance(value, list) else [value])]
            for name, value in given.items()
            if value is not None
        }
    )


def _fitted(document: Any) -> str:
    """Return a document as JSON, with its longest lists cut until a model can read it."""
    for most in (None, 200, 50, 10, 3):
        text = json_text(orjson.dumps(_cut(document, most) if most else document))
        if len(text) <= _LONGEST_TEXT:
            return text
    raise UsageWrong("The answer is too long to be read: narrow it down.")


def _cut(value: Any, most: int) -> Any:
    """Return a value with shorter lists; each tells how many members it lacks."""
    if isinstance(value, Mapping):
        return {name: _cut(inner, most) for name, inner in value.items()}
    if not isinstance(value, list):
        return value
    left = [f"… and {len(value) - most} more"] if len(value) > most else []
    return [_cut(inner, most) for inner in value[:most]] + left


def mcp(
    *,
    actions: Annotated[
        bool,
        typer.Option(
            "--actions",
            help="Offer acts too, such as pausing and replaying, each with a reason for the audit.",
        ),
    ] = False,
) -> None:
    """Serve status, problems, people and dead letters to an assistant.

    It speaks the Model Context Protocol over stdin and stdout: give the command to the program that
    is to ask. Fields of profiles are masked, and nothing is changed unless --actions is given.
    """
    needs_extra("mcp", "mcp", "segrelay mcp")
    import mcp_types as types  # noqa: PLC0415 - of an extra
    from mcp.server import Server  # noqa: PLC0415 - see above
    from mcp.server.stdio import stdio_server  # noqa: PLC0415 - see above

    tools = Tools(with_acts=actions)

    async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools.listed())

    async def call_tool(_: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        """Run a tool in a thread; what it refuses is an answer too, which the model can act on."""
        run, is_wrong = partial(tools.call, asked.name, asked.arguments or {}), False
        try:
            answer = await to_thread.run_sync(run, abandon_on_cancel=True)
        except SegrelayError as error:
            answer, is_wrong = error.message, True
        content = types.TextContent.model_validate({"type": "text", "text": answer})
        return types.CallToolResult(content=[content], is_error=is_wrong)

    async def run() -> None:
        server = Server(
            "segrelay",
            version=version("segrelay"),
            instructions=_INSTRUCTIONS,
            on_list_tools=list_tools,
            on_call_tool=call_tool,
        )
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    try:
        anyio.run(run)
    except KeyboardInterrupt:
        pass
    finally:
        tools.end()
