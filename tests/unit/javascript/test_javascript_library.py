"""The helpers, as Lytics documents them in "Using the JavaScript Library"."""

import pytest

from segrelay.jsonnet.rendered import Row, TemplateFailed
from tests.unit.javascript.conftest import row_of

DIGEST = "e43763399e5318f14cd7473c4902a6b319343d577ec8283898a5edf9dbc6d711"
SETTINGS = {
    "key": "value",
    "field": "email",
    "list_field": "emails",
    "map": [{"target": "t", "source": "s"}, {"target": "u"}, 1],
}
FIELDS = {"emails": ["Test@Lytics.com", "b"], "none": [], "map": {"a": 1, "n": None}, "nil": None}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("get('email', '', data)", "ann@example.com"),
        ("get('other', 'x', data)", "x"),
        ("get('other')", None),
        ("get('other', undefined, data)", None),
        ("get('nil', 'x', data)", None),
        ("get('toString', 'x', data)", "x"),
        ("getFirstField('emails', '', data)", "Test@Lytics.com"),
        ("getFirstField('none', 'x', data)", "x"),
        ("getFirstField('email', '', data)", "ann@example.com"),
        ("getFirstField('other', null, data)", None),
        ("getMap('map', 'a', 0, data)", 1),
        ("getMap('map', 'b', 0, data)", 0),
        ("getMap('email', 'length', 0, data)", 0),
        ("getMap('other', 'b', undefined, data)", None),
        ("jobConfGet('key')", "value"),
        ("jobConfGet('other', 7)", 7),
        ("jobConfGet('other')", None),
        ("jobConfGetMapByTarget('map', {})", {"t": "s", "u": None}),
        ("jobConfGetMapBySource('map', {})", {"s": "t"}),
        ("jobConfGetMapBySource('key', 0)", 0),
        ("JSON.parse(ly_job_config).key", "value"),
        ("typeof ly_auth_config", "undefined"),
        ("segEvents(data).length", 1),
        ("segEvents(null)", []),
        ("segSlug(data)", "vip"),
        ("segSlug({})", ""),
        ("segSlug({segment_events: [{slug: 'a'}, {slug: 'b'}]})", "ab"),
        ("[isEnter(data), isExit(data), isEnter(null)]", [True, False, False]),
        ("['vip', 'a'.repeat(32), 'x'].map((id) => inSeg(id, data))", [True, True, False]),
        ("segAssociationGet('a', 3)", 3),
        ("stream()", ""),
        ("sha256('test@lytics.com')", DIGEST),
        ("sha256(1) === sha256('1')", True),
        ("sha1('test')", "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3"),
        ("sha1(sha256('test@lytics.com'))", "205c1c1843dd8e12cb5492141e062d363b52f755"),
        ("sha256('\\ud800') === sha256('?')", True),
        ("[sha256('a'), 'A'.repeat(64), 1].map(isValidSha256)", [True, False, False]),
        ("[isValidSha1(sha1('a')), isValidSha1(sha256('a'))]", [True, False]),
        ("unixTimestamp()", 1_793_527_200),
        ("unixTimestampDateTime('2026-11-01T10:00:00.872199615Z', '')", 1_793_527_200),
        ("unixTimestampDateTime('2026-11-01T10:00:00', '')", 1_793_527_200),
        ("unixTimestampDateTime('never', '')", None),
        ("toPhoneE164('(415) 555-0123', '')", "+14155550123"),
        ("toPhoneE164('0171 5555555', 'de')", "+491715555555"),
        ("toPhoneE164('12', 'US')", "+112"),
        ("toPhoneE164('x9', 'nowhere')", "+9"),
        ("profileFieldFromConfig('field', '', null, data)", "ann@example.com"),
        ("profileFieldFromConfig('other', 'x', null, data)", "x"),
        ("profileFieldFromConfig('f', 'x', {f: 'email'}, data)", "ann@example.com"),
        ("firstProfileFieldFromConfig('list_field', '', null, data)", "Test@Lytics.com"),
        ("hashedProfileFieldFromConfig('list_field', '', null, data)", DIGEST),
        (f"hashedProfileFieldFromConfig('f', '', {{f: 'd'}}, {{d: '{DIGEST}'}})", DIGEST),
        ("hashedProfileFieldFromConfig('other', '', null, data)", ""),
        ("hmacSha256('m', 'k').slice(0, 16)", "b60090e3052297ae"),
        ("hmacSHA256('m', 'k') === hmacSha256('m', 'k')", True),
    ],
)  # fmt: skip
def test_each_helper_does_what_is_documented(valued, expression, value):
    assert valued(expression, row_of(SETTINGS, **FIELDS)) == value


@pytest.mark.parametrize("name", ["sha256", "sha1", "toPhoneE164"])
def test_a_missing_value_has_no_digest_that_would_make_many_people_one(valued, name):
    assert isinstance(valued(f"{name}(data.none_of_it)"), TemplateFailed)


@pytest.mark.parametrize("call", ["authConfGet('api_key', '')", "getOAuth2AccessToken()"])
def test_a_template_gets_no_secrets(valued, call):
    assert "a template gets no secrets" in valued(call).message


def test_the_only_clock_is_the_time_of_the_event(valued):
    at = row_of(None, 1_793_800_000_123_456)

    assert valued("[Date.now(), new Date(), Date().length > 9]", at) == [
        1_793_800_000_123,
        "2026-11-04T13:46:40.123Z",
        True,
    ]
    assert valued("unixTimestamp()") == 1_793_527_200


def test_an_event_without_a_time_has_no_clock(valued):
    change = Row(b'{"segment_events": [{"event": "change"}]}')

    assert "this event has no time" in valued("Date.now()", change).message
    assert valued("new Date(0)", change) == "1970-01-01T00:00:00.000Z"


def test_the_time_zone_is_utc(valued, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")

    assert valued(
        "[new Date(2026, 0, 2, 3).toISOString(), new Date('2026-01-02T03:04').getHours(),"
        " new Date(0).getTimezoneOffset(), new Date('2026-01-02T23:00Z').getDate()]"
    ) == ["2026-01-02T03:00:00.000Z", 3, 0, 2]


def test_random_numbers_are_the_same_for_the_same_event(valued):
    numbers = "[Math.random(), Math.random()]"
    one, again, other = valued(numbers), valued(numbers), valued(numbers, row_of(email="b"))

    assert one == again
    assert len({*one, *other}) == 4
    assert all(0 <= each < 1 for each in [*one, *other])
