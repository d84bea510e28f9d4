"""The reason why an event was left to the engine, in words that hold nothing of the event."""

from __future__ import annotations

from types import CodeType
from typing import Final

from worker.jsonnet.compiled.running.limits import Doubtful
from worker.jsonnet.compiled.running.standard import NATIVES

_FAULTS: Final[dict[type[BaseException], str]] = {
    KeyError: "a field that an object does not have",
    IndexError: "an element that an array does not have",
    ZeroDivisionError: "a division by zero",
}
_OTHER_KIND: Final = "a value of another kind than expected"
_ROOMS: Final = {
    "formats": "a format (%)",
    "logarithms": "a format (%) of a very large or small number",
    "printing": "a text that engines print differently",
}
"""By the last part of a module's name."""


def reason_of(error: BaseException) -> str:
    """Say what the engine was needed for: the function of `std` that gave up, or the fault."""
    if isinstance(error, Doubtful) and error.why:
        return error.why
    codes = _codes(error)
    natives = {native.run.__code__: f"std.{name}" for name, native in NATIVES.items()}
    named = next((natives[code] for code in reversed(codes) if code in natives), "")
    room = codes[-1].co_filename.removesuffix(".py").rpartition("/")[2]
    return named or _ROOMS.get(room) or _FAULTS.get(type(error), _OTHER_KIND)


def _codes(error: BaseException) -> list[CodeType]:
    """Return what was running, from the outermost call to the innermost."""
    codes: list[CodeType] = []
    at = error.__traceback__
    while at is not None:
        codes.append(at.tb_frame.f_code)
        at = at.tb_next
    return codes
