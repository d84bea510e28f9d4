"""Messages without personal data: everything that differs between people is taken out.

Whatever is said about a delivery by a template, a destination or an engine goes through here
before it is stored beside a cause, a pause or a moment of a person, or is printed.
"""

from __future__ import annotations

import re
from typing import Final

from segrelay.worker.contract.printable import CONTROLS

MESSAGE_CHARACTERS: Final = 200
_READ_CHARACTERS: Final = 2_000

_STAYS: Final = re.compile(r"[\w./-]+\.(?:jsonnet|libsonnet|js):\d+: |[1-5][0-9]{2}(?:: |\Z)")
"""The beginning of a message that is kept: a place in a template, or an HTTP status."""
_PLACEHOLDER: Final = r"<(?:email|value|id|number)>"
_TAG: Final = re.compile(rf"(?!{_PLACEHOLDER})<[^<>]*>")
_EMAIL: Final = re.compile(r"[^\s\"'<>(),;:]+@[^\s\"'<>(),;:]+")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`")
_NAME: Final = re.compile(
    r"[\"'`][a-z]+(?:[._][a-z]+)+[\"'`]|[\"'`](?:email|uuid|users|events)[\"'`]"
)
_HEX: Final = re.compile(r"\b(?=[0-9a-fA-F-]*[0-9])[0-9a-fA-F]{8}[0-9a-fA-F-]{8,}\b")
_PHONE: Final = re.compile(r"\+?[0-9][0-9 ()./-]{5,}[0-9]")
_NUMBER: Final = re.compile(r"(?:(?<![A-Za-z0-9])[0-9]+|[0-9]{4,})(?:[.,][0-9]+)*")
"""The form of numbers; the digits of a name such as `sha256` are none."""
_SPACE: Final = re.compile(r"\s+")
_HIDDEN: Final = "…"


def location_in(text: str) -> str:
    """Return the place in a template that a message begins with, `file:line`; "" if none."""
    found = _STAYS.match(text)
    return found[0][:-2] if found and ":" in found[0][:-2] else ""


def normalise_message(text: str) -> str:
    """Return a message without the parts that differ from person to person.

    Emails, numbers, hashes and what stands in quotes are replaced; a field's name in quotes stays,
    and so does the place in a template or the HTTP status that the message begins with. A value
    that stands bare in the text can't be told from it: the Jsonnet engine takes them out of what a
    template says, and `with_known_words` out of what a destination says. Normalising twice changes
    nothing.
    """
    kept = _STAYS.match(text)
    begin = kept[0] if kept else ""
    said = text[len(begin) : _READ_CHARACTERS]
    said = _TAG.sub(" ", CONTROLS.sub(" ", said))
    said = _EMAIL.sub("<email>", said)
    said = _QUOTED.sub(_unless_name, said)
    said = _HEX.sub("<id>", said)
    said = _PHONE.sub("<number>", said)
    said = _NUMBER.sub(_HIDDEN, said)
    return (begin + _SPACE.sub(" ", said).strip())[:MESSAGE_CHARACTERS]


def _unless_name(found: re.Match[str]) -> str:
    return found[0] if _NAME.fullmatch(found[0]) else "<value>"
