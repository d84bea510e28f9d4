"""`segrelay mcp`: answer a program by the Model Context Protocol, over stdin and stdout."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from segrelay.worker.errors import UsageWrong


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
    try:
        server = import_module("segrelay.ops.mcp.server")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("segrelay"):
            raise
        raise UsageWrong(
            "segrelay mcp needs an extra that is not installed: pip install 'segrelay[mcp]'."
        ) from error
    server.serve(with_acts=actions)
