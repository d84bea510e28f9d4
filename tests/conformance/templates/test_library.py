from segrelay.jsonnet.rendered import Row, TemplateFailed

EMAIL = "test@lytics.com"
SHA256 = "e43763399e5318f14cd7473c4902a6b319343d577ec8283898a5edf9dbc6d711"
ENTER = {"id": "0a" * 16, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}
EXIT = {"id": "0b" * 16, "slug": "old", "event": "exit", "exit": "2026-11-01T10:00:00Z"}
CHANGE = {"id": "0c" * 16, "slug": "any", "event": "change"}
PROFILE = {
    "email": EMAIL,
    "empty": "",
    "nothing": None,
    "map": {"x": 1},
    "favourite": "email",
    "_segments": ["vip", "news"],
    "segments_all": ["everybody"],
}
SETTINGS = {"attr": "audiences", "field": "email", "absent_field": "none", "size": "big", "n": None}

CALLS = {
    "has('nothing')": (True,) * 3,
    "has('missing')": (False,) * 3,
    "has('email', event.get('map'))": (False,) * 3,
    "get('empty', 'd')": ("",) * 3,
    "jobConfGet('missing')": (None,) * 3,
    "profileFieldFromConfig('absent_field', 'd')": (None,) * 3,
    "validatedEnum('missing', ['small'], 'small')": ("small",) * 3,
    "validatedEnum(field='size', enumOptions=['big'], default='small')": ("big",) * 3,
    "profileFieldFromConfig(configField='field')": (EMAIL,) * 3,
    "has(field='a', obj={ a: 1 })": (True,) * 3,
    "isValidSha256(obj=event.sha256(obj='x'))": (True,) * 3,
    "isValidSha1(obj=event.sha1(obj='x'))": (True,) * 3,
    "isEnter()": (True, False, False),
    "isExit()": (False, True, False),
    "segSlug()": ("vip", "old", "any"),
    "inSeg('everybody')": (True,) * 3,
    "inSeg('old')": (False,) * 3,
    "inSeg('any')": (False, False, True),
    f"inSeg('{'0a' * 16}')": (True, False, False),
    "enum('a', ['a', 'b'], 'b')": ("a",) * 3,
    "notNull(false, 1)": (False,) * 3,
    "slugForEvent(event.get('segment_events')[0])": ("vip", "old", "any"),
    "idForEvent(event.get('segment_events')[0])": ("0a" * 16, "0b" * 16, "0c" * 16),
    "segEvIsExit({ event: 'enter' })": (False,) * 3,
    "segEvIsExit({})": (False,) * 3,
    "sha1(12)": ("7b52009b64fd0a2a49e6d8a939753077792b0554",) * 3,
    "isValidSha256(event.sha256('x'))": (True,) * 3,
    f"isValidSha256('{SHA256.upper()}')": (False,) * 3,
    "isValidSha256(null)": (False,) * 3,
    f"isValidSha1('{SHA256}')": (False,) * 3,
}
"""By call, beside the examples that stand in the library itself (`test_library_reference.py`)."""


def test_a_function_means_what_the_table_says_of_each_event(agreed_source):
    fields = ",\n".join(f"'{number}': event.{call}" for number, call in enumerate(CALLS))
    profiles = [PROFILE | {"segment_events": [event]} for event in (ENTER, EXIT, CHANGE)]

    values = agreed_source(
        f"local event = import 'lytemplates.libsonnet';\n{{ {fields} }}", profiles, SETTINGS
    )

    for number, (call, expected) in enumerate(CALLS.items()):
        assert tuple(value[str(number)] for value in values) == expected, call


def test_a_profile_without_events_is_survived(agreed_source):
    source = (
        "local e = import 'lytemplates.libsonnet';\n"
        "[e.isEnter(), e.isExit(), e.segSlug(), e.inSeg('vip')]"
    )

    assert agreed_source(source, [{}]) == [[False, False, None, False]]


def test_what_is_no_text_has_no_digest(rendered):
    source = "local e = import 'lytemplates.libsonnet';\n\n{ a: e.sha256(e.get('missing')) }"

    [result] = rendered(source, [Row(b"{}")])

    assert isinstance(result, TemplateFailed)
    assert "sha256 needs a string, got null" in result.message
    assert (result.file, result.line) == ("t.jsonnet", 3)


def test_the_library_can_be_handed_on_and_does_not_appear_in_a_body(agreed_source):
    source = "local e = import 'lytemplates.libsonnet';\nlocal f(lib) = lib.get('a');\n[f(e), e]"

    assert agreed_source(source, [{"a": 1}]) == [[1, {}]]
