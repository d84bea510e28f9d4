"""Insider in memory, and all the ways in which it answers or does not."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from worker.destinations.api import Answer
from worker.destinations.sending import NoAnswer, Silence

ATTRIBUTE = "lytics_computed_attr"
UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
DELETE = "https://unification.useinsider.com/api/user/v1/attribute/delete"
POISON = "poison@example.com"


@dataclass(frozen=True)
class Sending:
    """One request as Insider got it.

    `outcome`: None = not answered yet, else `taken`, `refused` (surely not applied), `unsure`.
    """

    places: tuple[str, ...]
    digests: frozenset[bytes]
    url: str
    users: tuple[dict[str, Any], ...]
    process: Any
    at: float
    box: dict[str, str]


@dataclass
class Reply:
    """What Insider does with a request.

    Args:
        answer: What comes back; None = nothing, until the deadline.
        applied: Whether it takes effect; after `effect_seconds`, which may be after the answer.
        outcome: See `Sending`.
    """

    answer: Answer | NoAnswer | None
    outcome: str
    applied: bool = False
    answer_seconds: float = 0.02
    effect_seconds: float = 0.0


Responds = Callable[[Sending], Reply]


def taken(sending: Sending, errors: dict[str, list[str]] | None = None) -> Reply:
    count = len(sending.users)
    failed = len(errors or {})
    text = {
        "data": {
            "successful": {"count": count - failed},
            "fail": {"count": failed, "errors": errors or {}},
        }
    }
    return Reply(Answer(200, orjson.dumps(text)), "taken", applied=True)


def refused(status: int, message: str = "") -> Reply:
    text = {"success": False, "message": message or "not right"}
    return Reply(Answer(status, orjson.dumps(text)), "refused")


def failed(status: int = 503, *, applied: bool = False, effect_seconds: float = 0.0) -> Reply:
    return Reply(
        Answer(status, b"Service Unavailable"),
        "unsure",
        applied=applied,
        effect_seconds=effect_seconds,
    )


def silent(*, applied: bool = False, effect_seconds: float = 0.0) -> Reply:
    return Reply(None, "unsure", applied=applied, effect_seconds=effect_seconds)


def unreachable() -> Reply:
    return Reply(NoAnswer(Silence.UNREACHABLE, possibly_applied=False), "refused")


class Insider:
    """The lists of audiences, by email."""

    def __init__(self) -> None:
        self.lists: dict[str, set[str]] = defaultdict(set)
        self.events: Counter[str] = Counter()

    def apply(self, url: str, users: Iterable[dict[str, Any]]) -> None:
        for user in users:
            email = user["identifiers"]["email"]
            self.events[email] += 1
            if url == DELETE:
                self.lists[email] -= set(user["custom"]["partial"][ATTRIBUTE])
                continue
            slugs = user["attributes"].get("custom", {}).get(ATTRIBUTE)
            if slugs is None:
                continue
            if user.get("not_append"):
                self.lists[email] = set(slugs)
            else:
                self.lists[email] |= set(slugs)


def emails(sending: Sending) -> list[str]:
    return [user["identifiers"]["email"] for user in sending.users]


def holds_poison(sending: Sending) -> bool:
    return POISON in emails(sending)
