"""`segrelay rename`: the commands that give another name to what Redis holds."""

from __future__ import annotations

import typer

from segrelay.ops.waiting import move as rename_trigger

app = typer.Typer(help="Give a trigger another name.")
app.command("trigger")(rename_trigger)
