"""Insider in memory, and all the ways in which it answers or does not."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.settings.http import HttpRequests
from segrelay.worker.core.verdicts import Verdict
from segrelay.worker.destinations.api import Answer, NoAnswer, Silence
from segrelay.worker.destinations.http import HttpApi
from segrelay.worker.destinations.insider.api import InsiderApi

ATTRIBUTE = "lytics_computed_attr"
UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
DELETE = "https://unification.useinsider.com/api/user/v1/attribute/delete"
POISON = "poison@example.com"


@dataclass(frozen=True)
class Sending:
    """One request as Insider got it.

    `outcome`: None = not answered yet, else `taken`, `refused` (surely not applied), `unsure`.
    """

    positions: tuple[str, ...]
    digests: frozenset[bytes]
    url: str
    users: tuple[dict[str, Any], ...]
    root: dict[str, Any]
    process: Any
    at: float
    box: dict[str, str]
    digest_of_position: dict[str, bytes]
    refused_positions: set[str] = field(default_factory=set)
    refused_users: set[int] = field(default_factory=set)

    def refuse(self, users: Iterable[int]) -> None:
        """Remember which users, by their positions, and which of their deliveries are refused."""
        self.refused_users.update(users)
        digests = {
            digest_of(f"email:{self.users[at]['identifiers']['email']}")
            for at in self.refused_users
        }
        self.refused_positions.update(
            position for position, digest in self.digest_of_position.items() if digest in digests
        )

    @property
    def taken_users(self) -> list[dict[str, Any]]:
        return [user for at, user in enumerate(self.users) if at not in self.refused_users]


@dataclass
class Reply:
    """What Insider does with a request.

    Args:
        answer: What comes back; None = nothing, until the deadline.
        applied: Whether it takes effect; after `effect_seconds`, which may be after the answer.
        outcome: See `Sending`.
        refused_users: Positions of users that are refused while the others are taken.
    """

    answer: Answer | NoAnswer | None
    outcome: str
    applied: bool = False
    answer_seconds: float = 0.02
    effect_seconds: float = 0.0
    refused_users: tuple[int, ...] = ()


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
    positions = tuple({int(name.split(".")[1]) for name in errors or {}})
    return Reply(Answer(200, orjson.dumps(text)), "taken", applied=True, refused_users=positions)


def names_nobody(sending: Sending, *refused_users: int) -> Reply:
    """Take all users but these, and list an error for each of them, without saying whose it is."""
    text = {"errors": [{"message": "not right"} for _ in refused_users]}
    is_doubtful = bool(refused_users) and len(sending.users) > 1
    return Reply(
        Answer(200, orjson.dumps(text)),
        "unsure" if is_doubtful else "taken",
        applied=True,
        refused_users=refused_users,
    )


_ANY = HttpApi(HttpRequests(suppressed=("unsubscribed",)))


class NamesNobody(InsiderApi):
    """Insider with answers that may list errors and not say whose they are.

    A 422 and such a list are read as an endpoint's that says `unsubscribed` of people.
    """

    __slots__ = ()

    def classify(self, answer: Answer, bodies: Sequence[bytes], url: str) -> Verdict:
        if answer.status == 422 or answer.body.startswith(b'{"errors"'):
            return _ANY.classify(answer, bodies, url)
        return super().classify(answer, bodies, url)


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
    """The lists of audiences, attributes and events, by email."""

    def __init__(self) -> None:
        self.lists: dict[str, set[str]] = defaultdict(set)
        self.attributes: dict[str, dict[str, Any]] = defaultdict(dict)
        self.events: Counter[str] = Counter()
        self.log: dict[str, list[Any]] = defaultdict(list)
        self.known_as: dict[str, set[str]] = defaultdict(set)

    def forget(self, email: str) -> None:
        """Make a person anonymous."""
        for known in (self.lists, self.attributes, self.log, self.known_as):
            known.pop(email, None)

    def apply(self, url: str, users: Iterable[dict[str, Any]]) -> None:
        for user in users:
            email = user["identifiers"]["email"]
            self.events[email] += 1
            self.known_as[email].update(user["identifiers"].keys() - {"email"})
            if url == DELETE:
                self.lists[email] -= set(user["custom"]["partial"][ATTRIBUTE])
                continue
            self.log[email] += user.get("events", [])
            attributes = user.get("attributes", {})
            custom = attributes.get("custom", {})
            told = self.attributes[email]
            # If both switches are there, `append` wins.
            overwrites = not user.get("append", not user.get("not_append"))
            for name, value in {**attributes, **custom}.items():
                if isinstance(value, list) and not overwrites:
                    told[name] = told.get(name, []) + [
                        v for v in value if v not in told.get(name, [])
                    ]
                elif name != "custom":
                    told[name] = value
            told.pop(ATTRIBUTE, None)
            slugs = custom.get(ATTRIBUTE)
            if slugs is None:
                continue
            if overwrites:
                self.lists[email] = set(slugs)
            else:
                self.lists[email] |= set(slugs)


def emails(sending: Sending) -> list[str]:
    return [user["identifiers"]["email"] for user in sending.users]


def holds_poison(sending: Sending) -> bool:
    return POISON in emails(sending)
