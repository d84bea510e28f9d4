"""Options that the commands about templates share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
