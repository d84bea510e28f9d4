"""`segrelay flower`: watch the workers in a browser."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from segrelay.ops.terminal.options import needs_extra
from segrelay.ops.terminal.serving import LogFormat, end_with_parent, use_log_format


def flower(
    *,
    listen: Annotated[
        str, typer.Option(help="Listen here instead of at flower.listen.", metavar="HOST:PORT")
    ] = "",
    log_format: LogFormat = None,
) -> None:
    """Run Flower, to watch the workers. Some of its options are taken from FLOWER_… variables.

    It only shows, unless flower.actions is true.
    """
    use_log_format(log_format)
    end_with_parent()
    needs_extra("flower", "flower", "segrelay flower")
    import_module("segrelay.ops.flower.server").run_flower(listen)
