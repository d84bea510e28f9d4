"""Rules for the endpoints of a rehearsal: what each of them checks, limits and answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from worker.contract.settings.http import Signature


class SandboxTable(BaseModel):
    """Frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AnswerRule(SandboxTable):
    """An answer to requests of one kind; the first rule that fits a request counts.

    Attributes:
        endpoint: The destination's name; "" is every one.
        times: How many requests it is for; 0 = all.
    """

    endpoint: str = ""
    method: str = ""
    path: str = ""
    contains: str = ""
    status: int = Field(default=200, ge=100, le=599)
    body: Any = None
    headers: dict[str, str] = {}
    times: int = Field(default=0, ge=0)


class EndpointRules(SandboxTable):
    """The demands of an endpoint on its requests.

    Attributes:
        token: A header or parameter has to carry a token that the sandbox issued.
        sign: A request has to carry one of these signatures; none = it needs no signature.
        per_minute: More requests in a minute are answered 429; 0 = there is no limit.
        most: More results in a request are answered 413; 0 = there is no limit.
        at: The key of the array of results; "" = the body is the array.
    """

    token: bool = False
    sign: tuple[Signature, ...] = ()
    per_minute: int = Field(default=0, ge=0)
    most: int = Field(default=0, ge=0)
    at: str = ""
