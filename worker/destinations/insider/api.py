"""Insider's user API: up to a thousand users in one request, answered for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from worker.contract.events import Header
from worker.core.knowledge import Knowledge
from worker.core.verdicts import Verdict
from worker.destinations.api import Answer, Api, NotSendable, Shaped, ShapingRules
from worker.destinations.insider import answers as insider_answers
from worker.destinations.insider import memberships as insider_memberships
from worker.destinations.insider import shape as insider_shape
from worker.destinations.insider import uniting as insider_uniting

MAX_BYTES: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class InsiderApi(Api):
    """Upsert and attribute delete, as Insider documents them.

    Args:
        unites: Deliveries of one person may share a user object.
    """

    max_users: int = insider_shape.MAX_USERS
    max_bytes: int = MAX_BYTES
    method: str = "POST"
    networks: tuple[str, ...] | None = None
    unites: bool = True

    def shape(
        self, body: Any, header: Header, rules: ShapingRules, now_us: int
    ) -> Shaped | NotSendable:
        """Make one rendered body valid, or say why it can't be."""
        return insider_shape.shape(body, header, rules, now_us)

    def correct(
        self, shaped: Shaped, header: Header, rules: ShapingRules, knowledge: Knowledge
    ) -> Shaped | NotSendable:
        """Correct what newer events have made untrue in a body."""
        return insider_memberships.correct(shaped, header, rules, knowledge)

    def unite(
        self, users: Sequence[dict[str, Any]], root: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Combine user objects of one person into one, where they only add to each other."""
        return insider_uniting.unite(users, root) if self.unites else None

    def assemble(self, users: Sequence[bytes], root: Mapping[str, Any]) -> bytes:
        """Combine users into one body, with their common root options."""
        options = b"," + orjson.dumps(dict(root))[1:-1] if root else b""
        return b"".join((b'{"users":[', b",".join(users), b"]", options, b"}"))

    def classify(
        self,
        answer: Answer,
        *,
        users: int,
        url: str,
        people: Sequence[bytes] = (),  # noqa: ARG002 - Insider names users by their positions
    ) -> Verdict:
        """Say what an answer means for each user."""
        return insider_answers.classify(answer, users=users, url=url)

    def tells_data(self, shaped: Shaped, header: Header, rules: ShapingRules) -> bool:
        """Say whether a body holds data of the person beside memberships and events."""
        return any(insider_memberships.tells_data(user, header, rules) for user in shaped.users)

    def overwrites(self, shaped: Shaped) -> bool:
        """Say whether a list in a body replaces the one that Insider holds."""
        return any(insider_shape.overwrites(user, shaped.root) for user in shaped.users)

    def known_by(self, shaped: Shaped) -> Mapping[str, Any]:
        """Return the identifiers of the person as they were sent."""
        user = shaped.users[0]
        return {key: user[key] for key in ("identifiers", "insider_id") if key in user}

    def identifiers(self, user: Mapping[str, Any]) -> frozenset[str]:
        """Return `kind:value` of each identifier: users that share one are one person there."""
        return frozenset(f"{kind}:{value}" for kind, value in _identifiers(user))

    def identifies(self, body: Any, identity_value: str) -> bool:
        """Say whether a rendered body sends this value as an identifier."""
        users = body.get("users") if isinstance(body, dict) else None
        wanted = identity_value.strip().casefold()
        return any(
            str(value).strip().casefold() == wanted
            for user in (users if isinstance(users, list) else [])
            if isinstance(user, dict)
            for _, value in _identifiers(user)
        )


def _identifiers(user: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if "insider_id" in user:
        yield "insider_id", user["insider_id"]
    given = user.get("identifiers")
    for kind, value in (given if isinstance(given, dict) else {}).items():
        if kind == "custom" and isinstance(value, dict):
            yield from ((f"custom.{name}", text) for name, text in value.items())
        else:
            yield kind, value
