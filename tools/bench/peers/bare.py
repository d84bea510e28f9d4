"""Peer: the leanest loop that delivers the same profiles, and keeps none of segrelay's promises.

`python -m tools.bench.peers.bare` is one process. It pops 500 events from a list of Redis, renders
100 of them in one evaluation, corrects the users for Insider, and posts them. What it has popped is
lost if it dies; it keeps no order, has no rate limit, and retries nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import httpx
import orjson
import redis
import rjsonnet

from segrelay.jsonnet.rendered import Rendered, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.destinations.normalise import valid_e164
from tools.bench.peers.rendering import ENGINE, HEADERS, PAGE, PATH, REGION, corrected, rendered

FEED: Final = "feed"
_LIST: Final = "bare"
_BATCH: Final = 500

RenderEvents = Callable[[list[bytes]], Iterator[dict[str, Any]]]


def enqueue(events: list[bytes]) -> None:
    """Push the profile of each event."""
    client = redis.Redis.from_url(os.environ["PEER_REDIS"])
    for first in range(0, len(events), _BATCH):
        part = events[first : first + _BATCH]
        client.rpush(_LIST, *(orjson.dumps(orjson.loads(event)["data"]) for event in part))


def main() -> None:
    """Deliver what is in the list until the process is ended."""
    client = redis.Redis.from_url(os.environ["PEER_REDIS"])
    render = _compiled() if ENGINE == "compiled" else _by_rjsonnet
    with httpx.Client(base_url=os.environ["PEER_SANDBOX"], timeout=20, headers=HEADERS) as http:
        while True:
            profiles = cast("list[bytes]", client.lpop(_LIST, _BATCH))
            if not profiles:
                client.blpop([f"{_LIST}:never"], 0.05)
                continue
            users = [corrected(user, _phone) for body in render(profiles) for user in body["users"]]
            http.post(PATH, content=orjson.dumps({"users": users})).raise_for_status()


def _by_rjsonnet(profiles: list[bytes]) -> Iterator[dict[str, Any]]:
    return rendered(rjsonnet.evaluate_snippet, profiles)


def _compiled() -> RenderEvents:
    """Return a function that renders with the template as segrelay compiles it."""
    renderer = Renderer(PAGE.parent, LYTEMPLATES)
    template = renderer.load(PAGE.name)

    def render(profiles: list[bytes]) -> Iterator[dict[str, Any]]:
        for result in renderer.render(template, [Row(one) for one in profiles], "auto"):
            assert isinstance(result, Rendered), result
            yield orjson.loads(result.body)

    return render


def _phone(text: str) -> str | None:
    """Correct a number with segrelay's own rules, which are faster than `phonenumbers`."""
    return valid_e164(text, REGION)


if __name__ == "__main__":
    if FEED in sys.argv:
        enqueue(sys.stdin.buffer.read().splitlines())
    else:
        main()
