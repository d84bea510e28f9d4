"""Templates as people write them for Lytics' webhooks to other services: they render as they are.

Each does in its own words what published ones do for senders of email, SMS and WhatsApp and for
loyalty platforms; every engine has to make of it what such a service expects.
"""

import hashlib
import json

import pytest

from segrelay.jsonnet.accelerated import Accelerator
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Asserted, Rendered, Row, TemplateBroken
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES

ANN = {
    "email": "ann@example.com",
    "phone": "+14155550123",
    "first_name": 'Ann "A"',
    "member_no": 90071992547409,
    "points": "1200",
    "segment_events": [
        {"id": "a" * 32, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}
    ],
}
BEN = {"phone": "", "segment_events": [{"slug": "vip", "event": "exit", "exit": "2026-11-01"}]}

EMAIL = """local event = (import 'lytemplates.libsonnet');
{
  mails: [{
    from: 'Shop <shop@example.com>',
    // The sender wants its placeholders as JSON in a string.
    to: [{ address: event.get('email', ''), data: std.manifestJsonEx({
      name: event.get('first_name', ''),
      order: event.get('order', ''),
    }, '') }],
    template: { id: 'welcome' },
  }],
}"""
SMS = """local event = import "lytemplates.libsonnet";
{
  messages: [{
    from: 'Shop',
    to: [{ number: event.get('phone', '') }],
    text: 'Hello ' + event.get('first_name', 'you') + '!',
  }],
}"""
WHATSAPP = """local event = (import 'lytemplates.libsonnet');
local phone() =
  local number = event.get('phone', '');
  assert number != '' : 'a phone number is needed';
  number;
{
  to: phone(),
  content: { name: 'hello', body: [event.get('first_name', ''), event.get('order', '')] },
  language: event.validatedEnum('language', ['en', 'de'], 'en'),
}"""
LOYALTY = """local event = (import 'lytemplates.libsonnet');
local field = event.jobConfGet('member_field', 'email');
local member = event.get(field);
local unused = if member == '' then 'no member';
local points = std.parseInt(event.get('points', '0'));
{
  member: member,
  hash: event.sha256(event.profileFieldFromConfig('hashed', 'nobody')),
  tier: if points >= 1000 then 'gold' else 'silver',
  [if event.isEnter() then 'joined' else 'left']: event.segSlug(),
  [if event.has('first_name') then 'name']: event.get('first_name'),
}"""
ADDRESS = """local event = (import 'lytemplates.libsonnet');
'https://lists.example.com/people/' + event.get("email", "nobody") + '/join'
"""


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def mail(address, **data):
    told = json.dumps(data, indent="", separators=(",", ": "))
    to = [{"address": address, "data": told}]
    return {"mails": [{"from": "Shop <shop@example.com>", "to": to, "template": {"id": "welcome"}}]}


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        (
            EMAIL,
            {},
            [mail("ann@example.com", name='Ann "A"', order=""), mail("", name="", order="")],
        ),
        (
            SMS,
            {},
            [
                {"messages": [{"from": "Shop", "to": [{"number": number}], "text": text}]}
                for number, text in (("+14155550123", 'Hello Ann "A"!'), ("", "Hello you!"))
            ],
        ),
        (
            WHATSAPP,
            {"language": "fr"},
            [
                {
                    "to": "+14155550123",
                    "content": {"name": "hello", "body": ['Ann "A"', ""]},
                    "language": "en",
                },
                "failed",
            ],
        ),
        (
            LOYALTY,
            {"member_field": "member_no", "hashed": "email"},
            [
                {
                    "member": 90071992547409,
                    "hash": sha256("ann@example.com"),
                    "tier": "gold",
                    "joined": "vip",
                    "name": 'Ann "A"',
                },
                "failed",  # there is nothing to hash
            ],
        ),
        (
            ADDRESS,
            {},
            [
                f"https://lists.example.com/people/{who}/join"
                for who in ("ann@example.com", "nobody")
            ],
        ),
    ],
)
def test_templates_of_other_senders_render_as_they_are(agreed_source, source, settings, expected):
    assert agreed_source(source, [ANN, BEN], settings) == expected


@pytest.mark.parametrize("source", [EMAIL, SMS, WHATSAPP, LOYALTY, ADDRESS])
def test_templates_of_other_senders_are_compiled(tmp_path, source):
    (tmp_path / "t.jsonnet").write_text(source)

    assert (
        Accelerator.of(
            "t.jsonnet", TemplateFolder(tmp_path, LYTEMPLATES).bundle("t.jsonnet")
        ).why_not
        == ""
    )


@pytest.mark.parametrize("engine", ["auto", "jsonnet"])
def test_an_assert_in_a_function_skips_the_event_with_its_message(tmp_path, engine):
    (tmp_path / "t.jsonnet").write_text(WHATSAPP)
    renderer = Renderer(tmp_path, LYTEMPLATES)
    rows = [Row(json.dumps(profile).encode(), {}) for profile in (ANN, BEN)]

    ann, ben = renderer.render(renderer.load("t.jsonnet"), rows, engine)

    assert isinstance(ann, Rendered)
    assert ben == Asserted("a phone number is needed")


def test_a_comma_that_is_missing_is_named_with_its_place(tmp_path):
    source = (
        "local event = (import 'lytemplates.libsonnet');\n{\n  a: event.get('a', '')\n  b: 1,\n}"
    )
    (tmp_path / "t.jsonnet").write_text(source)

    with pytest.raises(TemplateBroken) as caught:
        Renderer(tmp_path, LYTEMPLATES).load("t.jsonnet")

    assert (caught.value.line, caught.value.column) == (4, 3)
