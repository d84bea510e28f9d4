"""Peer: a bare loop over streams that sends batches and keeps none of segrelay's promises.

`python -m tools.bench.peers.bare` is one process. It reads a batch, renders it with rjsonnet,
corrects the users for Insider as segrelay does, posts and deletes them. It keeps no intents and no
ledger, has no rate limit, and retries nothing.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final, Literal, cast

import httpx
import orjson
import redis

from segrelay.jsonnet.rendered import Rendered, Row, Template
from segrelay.jsonnet.renderer import Renderer
from segrelay.sandbox.people import AUDIENCES
from segrelay.templates import LYTEMPLATES, SHIPPED_FOLDER
from segrelay.worker.checks.preview import sample_header
from segrelay.worker.contract.settings.sections import (
    AUDIENCE_ATTRIBUTE,
    DEFAULT_AUDIENCE_ATTRIBUTE,
)
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import Shaped, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi
from tools.bench.peers.rendering import HEADERS, PATHS

FEED: Final = "feed"
STREAM: Final = "bare:{}"
BATCH: Final = 1_000
_GROUP: Final = "bare"
_SETTINGS: Final = {AUDIENCE_ATTRIBUTE: DEFAULT_AUDIENCE_ATTRIBUTE}


def enqueue(events: list[bytes]) -> None:
    """Put each event into the stream of its audience and direction."""
    client = redis.Redis.from_url(os.environ["PEER_REDIS"])
    for name in _streams():
        client.xgroup_create(name, _GROUP, id="0", mkstream=True)
    for first in range(0, len(events), BATCH):
        pipe = client.pipeline(transaction=False)
        for event in events[first : first + BATCH]:
            profile = orjson.loads(event)["data"]
            details = profile["segment_events"][0]
            name = STREAM.format(f"{details['event']}|{details['slug']}")
            pipe.xadd(name, {"p": orjson.dumps(profile)})
        pipe.execute()


def main() -> None:
    """Deliver the events of all streams until the process is ended."""
    client = redis.Redis.from_url(os.environ["PEER_REDIS"])
    renderer = Renderer(SHIPPED_FOLDER, LYTEMPLATES)
    templates = {way: renderer.load(f"insider/{way}.jsonnet") for way in PATHS}
    engine: Literal["auto", "jsonnet"] = (
        "auto" if os.environ.get("PEER_ENGINE") == "compiled" else "jsonnet"
    )
    with httpx.Client(base_url=os.environ["PEER_SANDBOX"], timeout=20) as http:
        while True:
            for name in _streams():
                _work(client, http, renderer, templates, name, engine)


def _work(  # noqa: PLR0917 - bare on purpose
    client: redis.Redis,
    http: httpx.Client,
    renderer: Renderer,
    templates: dict[str, Template],
    name: str,
    engine: Literal["auto", "jsonnet"],
) -> None:
    found = client.xreadgroup(_GROUP, str(os.getpid()), {name: ">"}, count=BATCH, block=50)
    if not found:
        return
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", cast("Any", found)[0][1])
    direction = name.removeprefix(STREAM.format("")).partition("|")[0]
    api, now_us = InsiderApi(), time.time_ns() // 1_000
    header = sample_header("", Direction(direction), now_us)
    rules = ShapingRules(PATHS[direction], DEFAULT_AUDIENCE_ATTRIBUTE, "US")
    rows = [Row(fields[b"p"], _SETTINGS) for _, fields in entries]
    users = [
        user
        for result in renderer.render(templates[direction], rows, engine)
        if isinstance(result, Rendered)
        if isinstance(shaped := api.shape(orjson.loads(result.body), header, rules, now_us), Shaped)
        for user in shaped.users
    ]
    body = orjson.dumps({"users": users})
    http.post(PATHS[direction], content=body, headers=HEADERS).raise_for_status()
    client.xdel(name, *(entry for entry, _ in entries))


def _streams() -> list[str]:
    return [STREAM.format(f"{way}|{slug}") for way in PATHS for slug in AUDIENCES]


if __name__ == "__main__":
    if FEED in sys.argv:
        enqueue(sys.stdin.buffer.read().splitlines())
    else:
        main()
