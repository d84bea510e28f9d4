"""Options of the commands that run until they are stopped: the log's form, and the address."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

from segrelay.worker import logs
from segrelay.worker.contract.settings.sections import ListeningSettings
from segrelay.worker.errors import UsageWrong

_Listening = TypeVar("_Listening", bound=ListeningSettings)


class LogFormatName(StrEnum):
    """The values of `--log-format`."""

    JSON = logs.JSON
    TEXT = logs.TEXT


LogFormat = Annotated[
    LogFormatName | None,
    typer.Option(
        "--log-format",
        help="The form of the log; by default, text in a terminal and JSON elsewhere.",
    ),
]


def use_log_format(chosen: LogFormatName | None) -> None:
    """Use a log format in this process and its children."""
    if chosen is not None:
        os.environ[logs.FORMAT_VARIABLE] = chosen.value


def listening_at(section: _Listening, address: str) -> _Listening:
    """Return a section of the configuration with another address to listen at; "" = unchanged."""
    if not address:
        return section
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise UsageWrong(f"--listen {address}: write HOST:PORT, e.g. {section.listen}.")
    return section.model_copy(update={"listen": address})
