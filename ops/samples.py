"""Received payloads, kept as files that can be the `sample` of a trigger."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final

import orjson
import typer

from segrelay.ops.state.acts import EXPORTED_FILE, Reads, act_of
from segrelay.ops.terminal.console import private_file
from segrelay.ops.terminal.frame import Result
from segrelay.worker.contract.redis.acts import note_act

_FOLDER: Final = "payloads"

Payload = Annotated[
    bool,
    typer.Option(
        "--payload",
        help="Write the payload, whole, to a file below redis.data_dir that only you may read: for"
        " `try`, or as a trigger's `sample`.",
    ),
]


def keep_payload(relay: Reads, name: str, payload: Any) -> Result:
    """Write a payload below the data directory, where no repository has it; the audit keeps that.

    Args:
        relay: The connection and the options that the frame gives a command.
        name: The name of the file, without its suffix.
        payload: A webhook's payload, or the profile of an event.
    """
    folder = relay.settings.redis.data_dir / _FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name.replace(':', '-').replace('/', '-')}.json"
    act = act_of(relay.command, arguments={EXPORTED_FILE: str(path.resolve())})
    note_act(relay.client, replace(act, count=1))
    with private_file(path) as file:
        file.write(orjson.dumps(payload, option=orjson.OPT_INDENT_2) + b"\n")
    return Result(
        {"file": str(path)},
        f"{path} has the payload with the person's data: delete it when it has served.",
        notes=[f"segrelay try {path}", f'sample = "{path}"   # in a table [triggers.NAME]'],
    )
