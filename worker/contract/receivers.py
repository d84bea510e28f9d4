"""The recent answers of the receivers, and their last requests, as Redis keeps them.

A request has an id, its outcome, and whom it was about: a line of the receiver's log leads to
people, and `segrelay why PERSON` leads to the line.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, cast

from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import DIGEST_BYTES
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import run_script

SEEN_WITHIN_MS: Final = 12_000
"""Milliseconds after which a receiver counts as gone; it reports every five seconds."""
BUCKET_MS: Final = 300_000
KEPT_BUCKETS: Final = 13
"""The number of buckets of five minutes that are kept: an hour, and the one that is not over."""
_TELL: Final = """\
#!lua flags=allow-oom
-- Adds what a receiver has answered. KEYS[1] receiver
-- ARGV[1] host and process  [2] lag (ms); -1 = it ends  [3] 1 = events came  [4] bucket (ms)
--   [5] buckets kept  [6] the largest request that it takes (bytes)  [7] how long a receiver that
--   reports nothing counts as running (ms); status, count, and the part of it since a request was
--   last taken …
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local bucket = math.floor(now / tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], 'seen', string.format('%.0f', now))
local up, limit = 'up|' .. ARGV[1], 'limit:' .. ARGV[1]
if ARGV[2] == '-1' then redis.call('HDEL', KEYS[1], up, limit)
else
  redis.call('HSET', KEYS[1], up, string.format('%.0f', now) .. '|' .. ARGV[2], limit, ARGV[6])
end
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'event', string.format('%.0f', now)) end
local is_taken = false
for at = 8, #ARGV, 3 do
  is_taken = is_taken or ARGV[at] == '200'
  redis.call('HSET', KEYS[1], 'last:' .. ARGV[at], string.format('%.0f', now) .. '|' .. ARGV[6])
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', bucket) .. '|' .. ARGV[at], ARGV[at + 1])
  redis.call('HINCRBY', KEYS[1], 'all|' .. ARGV[at], ARGV[at + 1])
end
if is_taken then redis.call('HSET', KEYS[1], 'taken', string.format('%.0f', now)) end
local oldest = bucket - tonumber(ARGV[5])
local fields = redis.call('HGETALL', KEYS[1])
local lowest
for at = 1, #fields, 2 do
  if is_taken and fields[at]:match('^since:') then redis.call('HDEL', KEYS[1], fields[at]) end
  local of = tonumber(fields[at]:match('^(%d+)|'))
  local seen = fields[at]:match('^up|') and tonumber(fields[at + 1]:match('^%d+'))
  local its_limit = seen and (fields[at]:gsub('^up|', 'limit:'))
  if (of and of < oldest) or (seen and seen < now - 3600000) then
    redis.call('HDEL', KEYS[1], fields[at], its_limit or fields[at])
  elseif seen and seen > now - tonumber(ARGV[7]) then
    local takes = tonumber(redis.call('HGET', KEYS[1], its_limit)) or 0
    lowest = math.min(lowest or takes, takes)
  end
end
-- A refusal for the size is solved for good once every receiver that runs takes more.
local refused_at, refused_by = (redis.call('HGET', KEYS[1], 'last:413') or ''):match('^(%d+)|(%d+)')
if refused_at and lowest and lowest > tonumber(refused_by) then
  redis.call('HSET', KEYS[1], 'solved', refused_at)
end
for at = 8, #ARGV, 3 do
  if ARGV[at + 2] ~= '0' then
    redis.call('HINCRBY', KEYS[1], 'since:' .. ARGV[at], ARGV[at + 2])
  end
end
"""


@dataclass(frozen=True, slots=True)
class Receivers:
    """The last reports of the receivers, summed up: their answers, and when they were seen.

    Args:
        seen_ms: The time when one was last seen; 0 = never.
        event_ms: The time of the last events; 0 = none have come.
        lag_ms: The longest delay of a receiver that was seen lately, by its host and process.
        answers: The number of requests answered in the last hour, by status.
        since_taken: The same since a request was last taken.
        taken_ms: The time of that; 0 = never.
        ever: The same since the beginning.
        last_ms: The time when each status was last answered.
        is_limit_raised: True if, since a request was last refused for its size, all receivers that
            ran at some moment took larger ones.
    """

    seen_ms: int = 0
    event_ms: int = 0
    lag_ms: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[int, int] = field(default_factory=dict)
    since_taken: Mapping[int, int] = field(default_factory=dict)
    taken_ms: int = 0
    ever: Mapping[int, int] = field(default_factory=dict)
    last_ms: Mapping[int, int] = field(default_factory=dict)
    is_limit_raised: bool = False


def report_receiver(
    client: Redis,
    answers: Mapping[int, int],
    since_taken: Mapping[int, int],
    *,
    lag_ms: int,
    events: bool,
    max_bytes: int = 0,
) -> None:
    """Add the answers of this receiver since its last report.

    Args:
        client: Redis.
        answers: Counts by status.
        since_taken: The part of them since a request was last taken.
        lag_ms: The delay of its timers; -1 = it ends.
        events: Something was stored.
        max_bytes: The largest request that it takes.
    """
    name = f"{socket.gethostname()}:{os.getpid()}"
    flat = [
        part
        for status, count in answers.items()
        for part in (status, count, since_taken.get(status, 0))
    ]
    head = (name, lag_ms, int(events), BUCKET_MS, KEPT_BUCKETS, max_bytes, SEEN_WITHIN_MS)
    run_script(client, _TELL, (keys.RECEIVER,), (*head, *flat))


def read_receivers(client: Redis, now_ms: int) -> Receivers:
    """Return the answers that the receivers have reported."""
    stored: Any = client.hgetall(keys.RECEIVER)
    bucket = now_ms // BUCKET_MS
    answers, lags = Counter[int](), dict[str, int]()
    ever, last = dict[int, int](), dict[int, int]()
    for name, value in stored.items():
        head, _, rest = name.decode().partition("|")
        if head == "up":
            seen, _, lag = value.partition(b"|")
            if int(seen) > now_ms - BUCKET_MS:
                lags[rest] = int(lag)
        elif head.startswith("last:"):
            last[int(head.removeprefix("last:"))] = int(value.partition(b"|")[0])
        elif head == "all":
            ever[int(rest)] = int(value)
        elif rest and int(head) > bucket - KEPT_BUCKETS:
            answers[int(rest)] += int(value)
    return Receivers(
        int(stored.get(b"seen", 0)),
        int(stored.get(b"event", 0)),
        lags,
        answers,
        _since_taken(stored),
        int(stored.get(b"taken", 0)),
        ever,
        last,
        0 < last.get(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 0) == int(stored.get(b"solved", 0)),
    )


def _since_taken(stored: Mapping[bytes, bytes]) -> dict[int, int]:
    return {
        int(name.removeprefix(b"since:")): int(value)
        for name, value in stored.items()
        if name.startswith(b"since:")
    }


_REFUSALS_FIELD: Final = "too_large"


def count_too_large(client: Redis) -> None:
    """Count one more request that was refused as too large."""
    client.hincrby(keys.REFUSALS, _REFUSALS_FIELD, 1)


def too_large(client: Redis) -> int:
    """Return the number of requests that were refused as too large."""
    return int(cast("bytes | None", client.hget(keys.REFUSALS, _REFUSALS_FIELD)) or 0)


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
        at_ms: The time when it was kept, a few seconds after its answer, by Redis' clock.
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


def keep_requests(client: Redis, requests: Iterable[WebhookRequest]) -> None:
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
        run_script(client, _KEEP, (keys.REQUESTS,), (MOST_REQUESTS, *flat))


def forget_requests(client: Redis, digests: Iterable[bytes]) -> int:
    """Forget the requests that were about one of these people; returns how many there were."""
    wanted = set(digests)
    rows: Any = client.xrange(keys.REQUESTS)
    gone = [name for name, fields in rows if wanted & set(_people(fields[b"people"]))]
    return int(client.xdel(keys.REQUESTS, *gone)) if gone else 0


def _people(text: bytes) -> list[bytes]:
    return [text[at : at + DIGEST_BYTES] for at in range(0, len(text), DIGEST_BYTES)]


def read_requests(client: Redis) -> Iterator[WebhookRequest]:
    """Yield the requests that are kept, the newest first."""
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
