"""The last requests to the receiver: each with its id, its outcome, and whom it was about.

So a line of the receiver's log leads to people, and `segrelay why PERSON` leads to the line.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from worker.contract import keys
from worker.contract.keys import DIGEST_BYTES
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import run_script

REQUEST_ID: Final = re.compile(r"req-[0-9a-f]{16}")
MOST_REQUESTS: Final = 2_000
MOST_PEOPLE: Final = 1_000
"""The most people of a request whose digests are kept, at 10 bytes each."""
_KEEP: Final = """\
#!lua flags=allow-oom
-- Keeps what the receiver has answered. KEYS[1] requests
-- ARGV[1] how many are kept; id, status, accepted, quarantined, digests …
for at = 2, #ARGV, 5 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'id', ARGV[at], 'status', ARGV[at + 1],
    'accepted', ARGV[at + 2], 'quarantined', ARGV[at + 3], 'people', ARGV[at + 4])
end
"""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A request to the receiver that was answered.

    Args:
        name: Its id.
        status: Of the answer.
        accepted: Deliveries that are in Redis because of it.
        quarantined: Events and payloads that could not be placed.
        people: The digests of those whom the deliveries are about.
        at_ms: When it was kept, a few seconds after its answer, by Redis' clock.
    """

    name: str
    status: int
    accepted: int = 0
    quarantined: int = 0
    people: Sequence[bytes] = ()
    at_ms: int = 0


def new_request_id() -> str:
    """Return an id that no other request has."""
    return f"req-{secrets.token_hex(8)}"


def keep_requests(client: redis.Redis, requests: Iterable[WebhookRequest]) -> None:
    """Keep requests, and forget the oldest ones."""
    flat = [
        part
        for one in requests
        for part in (
            one.name,
            one.status,
            one.accepted,
            one.quarantined,
            b"".join(one.people[:MOST_PEOPLE]),
        )
    ]
    if flat:
        with redis_errors():
            run_script(client, _KEEP, (keys.REQUESTS,), (MOST_REQUESTS, *flat))


def forget_requests(client: redis.Redis, digests: Iterable[bytes]) -> int:
    """Forget the requests that were about one of these people; returns how many there were."""
    wanted = set(digests)
    with redis_errors():
        rows: Any = client.xrange(keys.REQUESTS)
        gone = [name for name, fields in rows if wanted & set(_people(fields[b"people"]))]
        return int(client.xdel(keys.REQUESTS, *gone)) if gone else 0


def _people(text: bytes) -> list[bytes]:
    return [text[at : at + DIGEST_BYTES] for at in range(0, len(text), DIGEST_BYTES)]


def read_requests(client: redis.Redis) -> Iterator[WebhookRequest]:
    """Yield the requests that are kept, the newest first."""
    with redis_errors():
        rows: Any = client.xrevrange(keys.REQUESTS)
    for entry_id, fields in rows:
        yield WebhookRequest(
            fields[b"id"].decode(),
            int(fields[b"status"]),
            int(fields[b"accepted"]),
            int(fields[b"quarantined"]),
            _people(fields[b"people"]),
            int(entry_id.partition(b"-")[0]),
        )
