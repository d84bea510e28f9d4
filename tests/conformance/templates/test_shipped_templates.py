import json
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from segrelay.jsonnet.compiled import compile_template
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES, SHIPPED_FOLDER
from segrelay.worker.checks.preview import sample_profile
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import Knowledge
from segrelay.worker.destinations.insider.api import InsiderApi
from segrelay.worker.destinations.insider.shape import flag_name
from tests.conformance.templates.conftest import NOW_US, event_of

NOW = datetime(2027, 2, 20, 12, tzinfo=UTC)


def _profile(kind="enter", at="2026-11-01T10:00:00.872199615Z", **fields):
    event = {"id": "01" * 16, "slug": "vip", "event": kind}
    if kind != "change":
        event[kind] = at
    return {"email": "ann@example.com", "segment_events": [event], **fields}


def test_a_shipped_template_calls_the_library_without_looking_its_functions_up():
    bundle = TemplateFolder(SHIPPED_FOLDER, LYTEMPLATES).bundle("insider/enter.jsonnet")

    assert "call(" not in compile_template(bundle).source


def test_what_attributes_are_called_is_a_setting(shipped):
    settings = {"audience_attribute": "audiences", "audience_flag_prefix": "seg_"}

    [entered] = shipped("enter", [_profile()], settings)
    [left] = shipped("exit", [_profile("exit")], settings)
    [flagged] = shipped("flag-enter", [_profile()], settings)

    assert entered["attributes"]["custom"] == {"audiences": ["vip"]}
    assert left["custom"] == {"partial": {"audiences": ["vip"]}}
    assert flagged["attributes"]["custom"] == {"seg_vip": True}


PEOPLE = [
    ({"email": "Ann@Example.com"}, {"email": "ann@example.com"}),
    (
        {"_id": "1007", "payload_id": "9", "_uid": "u"},
        {"email": "ann@example.com", "custom": {"lytics_id": "1007"}},
    ),
    ({"_id": 1007}, {"email": "ann@example.com", "custom": {"lytics_id": "1007"}}),
    ({"payload_id": "9"}, {"email": "ann@example.com"}),
    ({"email": "", "payload_id": "9"}, {"custom": {"lytics_id": "9"}}),
    ({"email": None, "_id": "null"}, None),
    ({"email": "undefined", "_id": "0"}, None),
    ({"email": "anonymous", "_id": ""}, None),
]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("enter", "enter"),
        ("exit", "exit"),
        ("exit-event", "exit"),
        ("flag-enter", "enter"),
        ("flag-exit", "exit"),
    ],
)
def test_all_mean_the_same_person(shipped, name, kind):
    users = shipped(name, [_profile(kind, **fields) for fields, _ in PEOPLE])

    sent = [user and user["identifiers"] for user in users]
    assert sent == [expected for _, expected in PEOPLE]


def _values(thing):
    if isinstance(thing, dict):
        return [leaf for value in thing.values() for leaf in _values(value)]
    if isinstance(thing, list):
        return [leaf for value in thing for leaf in _values(value)] or [[]]
    return [thing]


def test_what_is_missing_is_left_out(shipped):
    names = sample_profile(Direction.ENTER, NOW).keys() - {"email", "segment_events"}
    profiles = [_profile(), _profile(**dict.fromkeys(names, "")), _profile(**dict.fromkeys(names))]

    users = shipped("enter", profiles)

    assert users[0] == users[1] == users[2]
    assert users[0]["attributes"].keys() == {"email", "custom"}
    assert not any(value in (None, "", []) for value in _values(users[0]))


def test_values_are_used_where_they_belong(shipped):
    profile = _profile(
        at="2026-11-01T12:00:00.872199615+02:00",
        age="34",
        score_recency="81.5",
        score_quantity="-7",
        score_volatility="old",
        consent_email_status="t",
        consent_gdpr_status="",
        consent_sms_status="F",
        first_name="Ann",
        phone="+14155550123",
    )

    [user] = shipped("enter", [profile])

    assert user["attributes"] == {
        "email": "ann@example.com",
        "age": 34,
        "name": "Ann",
        "phone_number": "+14155550123",
        "email_optin": True,
        "sms_optin": False,
        "custom": {"lytics_computed_attr": ["vip"], "score_recency": 81.5, "score_quantity": -7},
    }
    assert user["events"][0]["timestamp"] == "2026-11-01T10:00:00.872199Z"


def test_a_template_moves_nobody_by_another_direction_or_by_a_change(shipped):
    change = _profile("change", status="x")

    entered, changed = shipped("enter", [_profile("exit"), change])
    [flagged] = shipped("flag-enter", [_profile("exit")])
    [unflagged, *nobody] = shipped("flag-exit", [_profile("enter"), change])
    nobody += shipped("exit", [_profile("enter"), change])

    assert changed.keys() == {"identifiers", "attributes"}
    assert changed["attributes"]["custom"] == {"status": "x"}
    assert "custom" not in entered["attributes"]
    assert "custom" not in flagged["attributes"]
    assert "attributes" not in unflagged
    assert nobody == [None] * 3


SLUGS = ["vip", "VIP EU", "cart-abandoners", "ältere", "a.b/c", "übung_1", "İstanbul", "日本"]


@pytest.mark.parametrize("kind", ["enter", "exit"])
def test_the_attribute_is_called_the_same_in_templates_and_in_shaping(agreed, kind):
    profiles = [_profile(kind) for _ in SLUGS]
    for profile, slug in zip(profiles, SLUGS, strict=True):
        profile["segment_events"][0]["slug"] = slug

    bodies = agreed(SHIPPED_FOLDER, f"insider/flag-{kind}.jsonnet", profiles)

    for body, slug in zip(bodies, SLUGS, strict=True):
        name = flag_name("lytics_in_", slug)
        assert body["users"][0]["attributes"]["custom"][name] is (kind == "enter")
        event, api = event_of(f"flag-{kind}", kind, slug), InsiderApi()
        shaped = api.correct(api.shape(body, *event, NOW_US), *event, Knowledge(stale=True))
        assert shaped.users[0]["attributes"] == {"custom": {name: kind == "enter"}}


def test_an_endpoint_can_tell_a_repeated_event_by_its_id(agreed):
    profiles = [
        _profile(status="a"),
        _profile(status="b"),
        _profile("exit"),
        _profile(at="2026-11-02T10:00:00Z"),
        {**_profile(), "email": "bob@example.com"},
    ]

    ids = [body["id"] for body in agreed(SHIPPED_FOLDER, "http/event.jsonnet", profiles)]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_an_endpoint_gets_nothing_that_the_profile_does_not_have(agreed):
    [body] = agreed(SHIPPED_FOLDER, "http/event.jsonnet", [_profile(phone="", first_name=None)])

    assert body.keys() == {"id", "type", "audience", "occurred_at", "person"}
    assert body["person"] == {"email": "ann@example.com"}


GOLDEN = Path(__file__).parent / "golden"
WRITTEN_AT = datetime(2026, 11, 8, 9, 31, tzinfo=UTC)
BOTH = ("enter", "exit")
SHIPPED = {
    "ansira/enrich": BOTH,
    "braze/track": BOTH,
    "customerio/ids": ("enter",),
    "customerio/member": BOTH,
    "http/event": ("enter", "exit", "change"),
    "insider/change": ("change",),
    "insider/enter": ("enter",),
    "insider/exit": ("exit",),
    "insider/exit-event": ("exit",),
    "insider/flag-enter": ("enter",),
    "insider/flag-exit": ("exit",),
    "klaviyo/profile": BOTH,
    "meta/conversion": BOTH,
    "segment/track": BOTH,
    "slack/message": BOTH,
}
SETTINGS = {"audience_attribute": "lytics_computed_attr"}
SENT = [(template, direction) for template, each in SHIPPED.items() for direction in each]


def test_every_shipped_template_has_a_golden_result():
    templates = {
        str(path.relative_to(SHIPPED_FOLDER).with_suffix(""))
        for path in SHIPPED_FOLDER.rglob("*.jsonnet")
    }

    assert templates == SHIPPED.keys()
    assert {path.name for path in GOLDEN.iterdir()} == {_golden(*one).name for one in SENT}


@pytest.fixture(scope="module")
def shipped_renderer():
    """A renderer of the shipped templates; `test_template_command.py` asks all engines of them."""
    return Renderer(SHIPPED_FOLDER, LYTEMPLATES, compiles=False)


@pytest.mark.parametrize(("template", "direction"), SENT)
def test_the_shipped_sample_gives_the_golden_result(shipped_renderer, template, direction):
    row = Row(orjson.dumps(sample_profile(Direction(direction), WRITTEN_AT)), SETTINGS)

    [result] = shipped_renderer.render(shipped_renderer.load(f"{template}.jsonnet"), [row])

    body = json.loads(result.body)
    folder, _, name = template.partition("/")
    if folder == "insider":
        shaped = InsiderApi().shape(body, *event_of(name, direction), NOW_US)
        users = [orjson.dumps(user) for user in shaped.users]
        assert shaped.dropped == ()
        body = orjson.loads(InsiderApi().assemble(users, shaped.root))
    assert body == json.loads(_golden(template, direction).read_text())


def _golden(template, direction):
    return GOLDEN / f"{template.replace('/', '-')}.{direction}.json"
