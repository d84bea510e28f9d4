"""Malformed payloads, each with its outcome and its message.

A row is the payload's text, the reason it is refused for ("" = it is accepted, and why that is
right stands in the message column), and a part of the message.
"""

import orjson
import pytest

from segrelay.producer.events.payloads import Refused
from segrelay.worker.contract.events import Event
from tests.unit.producer.payload_samples import NOW_US, WRAPPED, read, with_entry, wrapped

GOOD = orjson.dumps(WRAPPED)
CHANGE = {"slug": "v", "event": "change"}


def _entries(*entries):
    return orjson.dumps(wrapped(segment_events=list(entries)))


def _entry(**fields):
    return orjson.dumps(with_entry(**fields))


def _raw_entry(text):
    return b'{"data":{"email":"ann@example.com","segment_events":[%s]}}' % text


def _raw_field(text):
    return (
        b'{"data":{"email":"ann@example.com",%s,"segment_events":'
        b'[{"slug":"vip","event":"enter","enter":"2026-11-01T10:00:00Z"}]}}' % text
    )


def _identity(text):
    return (
        b'{"data":{"email":%s,"segment_events":'
        b'[{"slug":"vip","event":"enter","enter":"2026-11-01T10:00:00Z"}]}}' % text
    )


def _time(text):
    return _raw_entry(b'{"slug":"vip","event":"enter","enter":%s}' % text)


def _nested(depth):
    return _raw_field(b'"deep":' + b"[" * depth + b"]" * depth)


def _stamped(stamp):
    data = {"email": "a@b.c", "segment_events": [CHANGE]}
    return orjson.dumps({"data": data, "meta": {"timestamp": stamp}})


def rows(reason, message, *texts):
    return [(text, reason, message) for text in texts]


NOT_JSON = [
    (text, "unreadable", "Not JSON")
    for text in (
        b"", b" ", b"{", b"[", b'"', b"nul", b"NaN", b"01", b"1e999", b"{'id':'1'}", b"[1,]",
        b'{"id":1 "data":2}', b"{}{}", b"// comment", b"<xml/>", b"a,b,c", b"\x1f\x8b",
        b'{"a":"\xc3\x28"}', b'{"a":"\\ud800"}', b'{"a":"\n"}', b'{"a":Infinity}', b"[" * 2_000,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000, GOOD[:-1], GOOD[1:], GOOD + b"x", GOOD + b",",
        b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD,
    )
]  # fmt: skip

NO_OBJECT = [
    *rows("unreadable", "this is a number",
        b"0", b"-0", b"7.25", b"1e3", b"123456789012345678901234567890", b"[1]"),
    *rows("unreadable", "this is a text",
        b'"vip"', b'""', b'"{}"', b'"\\u0000"', orjson.dumps(GOOD.decode()), b'["a"]'),
    *rows("unreadable", "this is null", b"null", b"[null]"),
    *rows("unreadable", "this is a boolean", b"true", b"false", b"[true]"),
    *rows("unreadable", "this is an array",
        b"[]", b"[[]]", b"[[[]]]", b"[[" + GOOD + b"]]", b"[" * 900 + b"]" * 900),
]  # fmt: skip

NO_PROFILE = [
    (b'{"data":null}', "unreadable", "`data` should be a profile, but is null"),
    *rows("unreadable", "but is a number",
        b'{"data":1}', b'{"specversion":"1.0","data":{"data":7}}'),
    *rows("unreadable", "but is a text", b'{"data":"x"}', b'{"specversion":"1.0","data":"x"}'),
    *rows("unreadable", "but is an array", b'{"data":[]}', b'{"data":[{"segment_events":[]}]}'),
    *rows("no_events", "has no `segment_events`",
        b'{"specversion":"1.0","data":' * 500 + b"{}" + b"}" * 500),
]  # fmt: skip

NO_EVENTS = [
    *rows("no_events", "has no `segment_events`",
        b"{}", b"[{}]", b'{"id":"1"}', b'{"data":{}}', b'{"email":"a@example.com"}',
        b'{"data_base64":"e30="}', b'{"specversion":"1.0"}', b'{"specversion":"1.0","data":{}}',
        b'{"specversion":"1.0","data":{"data":{}}}', b'{"data":{"data":{"segment_events":[1]}}}',
        b'{"Segment_Events":[{}]}', b'{"segment_events":null}'),
    (b'{"id":"1","data":{"email":"a@example.com"},"meta":{}}', "no_events", "has no"),
    *rows("no_events", "is empty",
        b'{"segment_events":[]}', b'{"data":{"segment_events":[]}}',
        b'{"segment_events":[{}],"segment_events":[]}'),
    (b'{"segment_events":{}}', "no_events", "should be an array, but is an object"),
    *rows("no_events", "but is a text", b'{"segment_events":"vip"}', b'{"segment_events":"[]"}'),
]  # fmt: skip

BAD_EVENT = [
    (_entries(None), "bad_event", "this is null"),
    *rows("bad_event", "none of enter, exit, change",
        _entries({}), _entry(event=None), _entry(event=""), _entry(event="Enter"),
        _entry(event="ENTER"), _entry(event=" enter"), _entry(event="entered"),
        _entry(event="delete"), _entry(event=1), _entry(event=True), _entry(event=["enter"]),
        _entry(event={"enter": 1})),
    (_entry(slug=7), "bad_event", "`slug` should be a text, but is a number"),
    (_entry(slug="x" * 257), "bad_event", "`slug` is longer than 256 characters"),
    (_entry(id=True), "bad_event", "`id` should be a text, but is a boolean"),
]  # fmt: skip

IDENTITIES = [
    *rows("no_identity", "has no `email`",
        _identity(b"null"), orjson.dumps(wrapped(email=None, Email="ann@example.com")),
        _identity(b'"ann@example.com","email":null')),
    *rows("no_identity", "is empty",
        _identity(b'""'), _identity(b'"  \\t\\n"'), _identity(b'"\\u00a0"')),
    *rows("no_identity", "neither a text nor a whole number",
        _identity(b"true"), _identity(b"false"), _identity(b"[]"),
        _identity(b'["ann@example.com"]'), _identity(b'{"a":"ann@example.com"}')),
    *rows("no_identity", "not a whole one that JSON holds exactly",
        _identity(b"1.5"), _identity(b"1.0"), _identity(b"1e3")),
    (_identity(b'"' + b"x" * 513 + b'"'), "no_identity", "longer than 512 characters"),
]  # fmt: skip

TIMES = [
    (_raw_entry(b'{"slug":"vip","event":"enter"}'), "bad_time", "no time under `enter`"),
    (_raw_entry(b'{"slug":"vip","event":"exit"}'), "bad_time", "no time under `exit`"),
    (
        _raw_entry(b'{"slug":"vip","event":"exit","enter":"2026-11-01T10:00:00Z"}'),
        "bad_time",
        "no time under `exit`",
    ),
    *(
        (_time(text), "bad_time", "is not an RFC 3339 time")
        for text in (
            b"null", b"1793527200", b"true", b"[]", b"{}", b'""', b'"now"', b'"2026-11-01"',
            b'"2026-11-01T10:00:00"', b'"2026-11-01T10:00Z"', b'"2026-11-01T10:00:00,5Z"',
            b'"2026-1-1T1:0:0Z"', b'"Sun, 01 Nov 2026 10:00:00 GMT"', b'"2026-W44-7T10:00:00Z"',
            b'"2026-11-01T10:00:00Z\\n"', b'"2026-11-01T10:00:00+2"',
            '"٢٠٢٦-11-01T10:00:00Z"'.encode(),
        )
    ),
    *(
        (_time(text), "bad_time", "no date and time of the calendar")
        for text in (
            b'"2026-00-01T10:00:00Z"', b'"2026-13-01T10:00:00Z"', b'"2026-11-00T10:00:00Z"',
            b'"2026-11-31T10:00:00Z"', b'"2026-02-29T10:00:00Z"', b'"2026-11-01T24:00:00Z"',
            b'"2026-11-01T10:60:00Z"', b'"0000-01-01T00:00:00Z"',
        )
    ),
    (_time(b'"2026-11-01T10:00:00+24:00"'), "bad_time", "no date and time of the calendar"),
    (_time(b'"1970-01-01T00:00:00Z"'), "bad_time", "is before 1970"),
    (_time(b'"ann@example.com"'), "bad_time", "A text of 15 characters"),
    (_time(b'"9999-12-31T23:59:59-05:00"'), "bad_time", ""),
    (_time(b'"9999-12-31T23:59:60Z"'), "bad_time", ""),
    (_time(b'"2026-11-01T10:05:11Z"'), "future_time", "301 s ahead of Redis' clock"),
    (_time(b'"2026-11-01T10:00:00-23:59"'), "future_time", "ahead of Redis' clock"),
    *(
        (_stamped(stamp), reason, message)
        for stamp, reason, message in (
            ("", "bad_time", "is not an RFC 3339 time"),
            (1_793_527_200, "bad_time", "is not an RFC 3339 time"),
            ("2099-01-01T00:00:00Z", "future_time", "ahead of Redis' clock"),
        )
    ),
]  # fmt: skip

ODD_BUT_RIGHT = [
    (GOOD, "", "the page's own form"),
    (b"\xef\xbb\xbf" + GOOD, "", "a byte order mark is no content"),
    (b" \r\n\t" + GOOD + b"\n", "", "space around it"),
    (_raw_field(b'"email":"bob@example.com"'), "", "of two equal keys the last holds"),
    (_raw_field(b'"a":123456789012345678901234567890'), "", "a number as JSON holds it"),
    (_raw_field(b'"a":"\\ud83d\\ude00"'), "", "a pair of surrogates"),
    (_raw_field(b'"data":{"a":1}'), "", "a profile may have a field `data`"),
    (_nested(250), "", "as deep as can be carried"),
    (_raw_field(b'"big":"' + b"x" * 1_000_000 + b'"'), "", "1 MB"),
    (b'{"id":null,' + GOOD[len(b'{"id":"1000000000000000007",') :], "", "no id of its own"),
    (_time(b'"2026-11-01T10:05:10Z"'), "", "five minutes ahead"),
    (_time(b'"2026-11-01T10:00:60Z"'), "", "a leap second"),
    (_entry(id=12, slug="twelve"), "", "an audience's id may be a number"),
    (_entry(slug=" vip "), "", "names are trimmed"),
    (_identity(b"42"), "", "a number as identity is taken as text"),
]


TABLE = NOT_JSON + NO_OBJECT + NO_PROFILE + NO_EVENTS
TABLE += BAD_EVENT + IDENTITIES + TIMES + ODD_BUT_RIGHT


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    TABLE,
    ids=[f"{number} {reason or 'accepted'}" for number, (_, reason, _) in enumerate(TABLE)],
)
def test_each_has_its_outcome_and_its_message(text, reason, message):
    [item] = read(text)

    if reason:
        assert isinstance(item, Refused)
        assert item.reason == reason
        assert message in item.message
        assert "ann@example.com" not in item.message
        assert "Ann" not in item.message
    else:
        assert isinstance(item, Event), message


def test_the_clock_that_counts_is_redis_clock():
    text = _time(b'"2026-11-01T10:05:11Z"')

    [item] = read(text, now_us=NOW_US + 2_000_000)

    assert isinstance(item, Event)
