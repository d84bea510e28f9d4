"""Payloads of invented people, and a reader for them."""

import copy

from segrelay.producer.events.payloads import ReadingRules, Refused, events_of, load, values_of
from segrelay.worker.errors import PayloadRefused

NOW_US = 1_793_527_210_000_000
VIP = "0123456789abcdef0123456789abcdef"

ENTER = {"id": VIP, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00.872199615Z"}
WRAPPED = {
    "id": "1000000000000000007",
    "data": {"email": "ann@example.com", "first_name": "Ann", "segment_events": [ENTER]},
    "meta": {
        "object": "user",
        "subscription_id": "fedcba9876543210fedcba9876543210",
        "timestamp": "2026-11-01T10:00:04.651979584Z",
    },
}


def wrapped(**profile):
    payload = copy.deepcopy(WRAPPED)
    payload["data"].update(copy.deepcopy(profile))
    return payload


def with_entry(**entry):
    return person("ann@example.com", **entry)


def person(who, **entry):
    """Return the payload of an entrance; `who` is an address, or the number of one."""
    email = who if isinstance(who, str) else f"person{who}@example.com"
    return wrapped(email=email, segment_events=[{**ENTER, **entry}])


def resolve(audience_id, slug):
    """Know `vip` by its id, as a book that has seen it."""
    return slug or {VIP: "vip"}[audience_id]


def read(payload, *, identity="email", now_us=NOW_US, state=False, skip_hook=False):
    rules = ReadingRules(NOW_US, now_us, identity, resolve, state, skip_hook)
    try:
        value = load(payload) if isinstance(payload, bytes) else payload
    except PayloadRefused as refusal:
        return [Refused.of(refusal, payload)]
    return [item for one in values_of(value) for item in events_of(one, rules)]
