"""An account of the sandbox's Insider, and what is posted to it."""

from __future__ import annotations

import orjson

from segrelay.sandbox.exchange import Reply
from segrelay.sandbox.insider.api import ArrivedRequest, Insider
from segrelay.sandbox.insider.rules import UPSERT
from segrelay.sandbox.settings import SandboxSettings

NOW = 1_796_000_000.0  # 2026-11-29T10:13:20Z
HEADERS = {"x-partner-name": "acme", "x-request-token": "t", "content-type": "application/json"}
RECENT = "2026-11-20T10:00:00.872199Z"


def account(**settings) -> Insider:
    return Insider(SandboxSettings(**settings))


def person(email="ann@example.com", lists=("vip",), **user):
    custom = {"lytics_computed_attr": list(lists)}
    return {"identifiers": {"email": email}, "attributes": {"custom": custom}, **user}


def removal(email="ann@example.com", *slugs):
    partial = {"lytics_computed_attr": list(slugs)}
    return {"identifiers": {"email": email}, "custom": {"partial": partial}}


def event(name="lytics_trigger", at=RECENT, **parameters):
    return {"event_name": name, "timestamp": at, "event_params": {"custom": parameters}}


def post(insider, *users, path=UPSERT, now=NOW, headers=HEADERS, **root):
    return post_body(insider, {"users": list(users), **root}, path=path, now=now, headers=headers)


def post_body(insider, body, *, path=UPSERT, now=NOW, headers=HEADERS):
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    admitted = insider.admit(ArrivedRequest(path, headers, text), now)
    return admitted if isinstance(admitted, Reply) else insider.apply(admitted, now)


def value(answer):
    return orjson.loads(answer.body)


def errors(answer):
    return value(answer)["data"]["fail"].get("errors", {})


def lists(insider):
    return insider.profiles.lists("lytics_computed_attr")
