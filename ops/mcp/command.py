"""`segrelay mcp`: answer a program by the Model Context Protocol, over stdin and stdout."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from segrelay.ops.terminal.options import needs_extra


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
    import_module("segrelay.ops.mcp.server").serve(with_acts=actions)
