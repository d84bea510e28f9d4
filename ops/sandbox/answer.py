"""Answers in the shapes that Insider uses: a status, a body, headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

_JSON: Final = (b"content-type", b"application/json")
_HTML: Final = (b"content-type", b"text/html; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Reply:
    """The sandbox's answer to one request.

    Attributes:
        headers: Without the length, which the server adds.
        failed: Positions in `users` of those that were refused.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)
    failed: frozenset[int] = frozenset()


def json_answer(status: int, value: Any) -> Reply:
    """Return an answer with a JSON body."""
    return Reply(status, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))


def error(status: int, text: str) -> Reply:
    """Return an error about the body or the rate, in Insider's form."""
    return json_answer(status, {"error": text})


def denial(status: int, message: str) -> Reply:
    """Return an error about credentials, in Insider's form."""
    return json_answer(status, {"success": False, "message": message})


def html_page(status: int) -> Reply:
    """Return the HTML page that a proxy in front of Insider answers with."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n"
    return Reply(status, page.encode(), (_HTML,))


def counted(
    users: int, errors: Mapping[str, Sequence[str]], failed: frozenset[int], *, fail_count: int
) -> Reply:
    """Return the 200 of a write: the number of users taken, and the errors of the others.

    An empty side is `{}` without a count. Insider does not say whether `fail_count` counts users
    or errors.
    """
    successful = {"count": users - len(failed)} if users > len(failed) else {}
    fail = {"count": fail_count, "errors": errors} if errors else {}
    body = orjson.dumps({"data": {"successful": successful, "fail": fail}})
    return Reply(200, body, failed=failed)
