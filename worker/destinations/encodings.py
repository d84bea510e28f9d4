"""Encodings of a body: JSON, the fields of a form, or a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlencode

import orjson

Encoding = Literal["json", "form", "text"]

CONTENT_TYPES: Final[Mapping[Encoding, str]] = {
    "json": "",  # what a sender says anyway
    "form": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
}
_SCALARS: Final = (str, int, float, bool)


def misfit(body: Any, encoding: Encoding) -> str | None:
    """Say why a value can't be written in an encoding, or None where it can."""
    if encoding == "json":
        if isinstance(body, str):
            return (
                'the template yields a text, but the encoding is "json": write encoding = "text"'
                " for a body, or url = { template = … } for a URL"
            )
        return None
    if encoding == "text":
        return None if isinstance(body, str) else (
            'the template yields no text, but the encoding is "text"'
        )  # fmt: skip
    if not isinstance(body, dict):
        return 'the template yields no object, but the encoding is "form"'
    wrong = next((name for name, value in body.items() if not _fits_a_form(value)), None)
    return wrong and f"{wrong} is neither a text, a number, true, false, nor a list of these"


def encoded(user: bytes, encoding: Encoding) -> bytes:
    """Return a body that is given as JSON in its encoding."""
    if encoding == "json":
        return user
    body = orjson.loads(user)
    return body.encode() if encoding == "text" else urlencode(list(_fields(body))).encode()


def _fits_a_form(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(one is None or isinstance(one, _SCALARS) for one in values)


def _fields(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a form; a list becomes one for each value, null none."""
    for name, value in body.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield name, one if isinstance(one, str) else orjson.dumps(one).decode()
