"""Which dead letters are meant, and which are replayed."""

import orjson
import pytest

from segrelay.ops.dead_letters.commands import identified, obstacle
from segrelay.ops.dead_letters.reading import place_of
from segrelay.worker.contract.events import Header, encode_header
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import Direction
from tests.configuration import insider, settings_in, trigger

NOW_MS = 1_795_500_000_000
DIGEST = bytes(range(10))
HEADER = Header(
    DIGEST,
    "vip",
    Direction.ENTER,
    1_000 * NOW_MS - 5,
    state=False,
    skip_hook=False,
    repair=False,
    accepted_ms=7,
)

OLD = {"header": orjson.loads(encode_header(HEADER._replace(time_us=1_000 * NOW_MS - 60_000_001)))}
NO_HEADER = {"profile": None, "entry": ["aGVhZGVy", "eA=="], "header": None}


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path, insider(), trigger("enter"))


def dead_letter(**changes):
    return {
        "id": "insider.3.beef",
        "destination": "insider",
        "trigger": "enter",
        "audience": "vip",
        "reason": "refused",
        "cause": "c1",
        "replays": 0,
        "first_at_ms": NOW_MS - 1_000,
        "header": orjson.loads(encode_header(HEADER)),
        "profile": {"email": "ann@example.com", "segment_events": [{}]},
    } | changes


@pytest.mark.parametrize(
    ("dead_letter_id", "partition"),
    [
        ("insider.3.beef", ("insider", 3)),
        ("insider.x.beef", None),
        ("insider.3", None),
        (".3.beef", None),
    ],
)
def test_a_dead_letters_id_begins_with_its_place(dead_letter_id, partition):
    assert place_of(dead_letter_id) == partition


@pytest.mark.parametrize(
    ("changes", "policy", "why"),
    [
        ({}, {}, ""),
        ({"trigger": "gone"}, {}, "orphaned"),
        ({"header": orjson.loads(encode_header(HEADER._replace(audience="gold")))}, {}, "unwanted"),
        ({"destination": "elsewhere"}, {}, "orphaned"),
        (OLD, {}, "older_than_ledger"),
        (OLD, {"named": True}, "older_than_ledger"),
        (OLD, {"force": True}, ""),
        ({"first_at_ms": NOW_MS - 60_001}, {}, ""),
        (NO_HEADER | {"first_at_ms": NOW_MS - 60_001}, {"named": True}, "older_than_ledger"),
        ({"header": None}, {}, "unreadable"),
        ({"profile": None}, {}, "unreadable"),
        ({"profile": None}, {"named": True}, "unreadable"),
        ({"profile": None, "entry": ["aGVhZGVy", "eA=="]}, {"named": True}, ""),
        ({"profile": None, "entry": ["no base64", "eA=="]}, {"named": True}, "unreadable"),
    ],
)
def test_what_a_replay_leaves_out(settings, changes, policy, why):
    oldest_us = 0 if policy.get("force") else 1_000 * (NOW_MS - 60_000)
    named = policy.get("named", False)
    scopes = {name: Scope.of(each, {}) for name, each in settings.triggers.items()}

    assert obstacle(dead_letter(**changes), settings, oldest_us, scopes, named=named) == why


def test_a_dead_letter_without_segment_events_is_replayed_as_it_is():
    letter = dead_letter(profile={"segment_events": []})

    assert identified(letter, None) is letter
