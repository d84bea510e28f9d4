"""Options that the commands about templates share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from worker.errors import UsageWrong

Folder = Annotated[
    Path | None,
    typer.Option(
        "--templates", help="This folder; the configuration is not read then.", metavar="DIR"
    ),
]
TriggerName = Annotated[
    str, typer.Option("--trigger", help="As a delivery of this trigger.", metavar="TRIGGER")
]
Given = Annotated[
    str,
    typer.Option("--settings", help="The trigger's settings, a JSON object.", metavar="JSON"),
]
TemplateArgument = Annotated[str, typer.Argument(help="Below the templates folder.")]


def object_of(text: str) -> Mapping[str, Any]:
    """Return the object that an option holds.

    Raises:
        UsageWrong: It is none.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageWrong(f"--settings is not JSON: {error.msg}.") from error
    if not isinstance(value, dict):
        raise UsageWrong("--settings has to be a JSON object.")
    return value
