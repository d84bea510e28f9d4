"""What the commands about templates are made of, without an engine and without Redis."""

import orjson

from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Asserted, Rendered
from segrelay.ops.templates.check import asked_for, placed, unknown_fields
from segrelay.ops.templates.render import changes_of, compared
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import Finding, Previewed


def bundle_of(folder, text):
    (folder / "t.jsonnet").write_text(text)
    return TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")


def test_fields_are_found_wherever_the_library_is_asked(tmp_path):
    bundle = bundle_of(
        tmp_path,
        "local e = (import 'lytemplates.libsonnet');\n"
        "{ a: e.get('one', ''), c: if e.has(\"two\") then 1,  // e.get('commented')\n"
        "  d: (import 'lytemplates.libsonnet').get('three'), f: e.get(e.x) }",
    )

    assert [name for name, *_ in asked_for(bundle)] == ["one", "two", "three"]


def test_a_field_that_is_mistyped_is_named_with_the_nearest_one(tmp_path):
    bundle = bundle_of(
        tmp_path,
        "local e = import 'lytemplates.libsonnet';\n{ a: e.get('emial'), b: e.get('colour') }",
    )

    [typo] = unknown_fields(bundle, [{"email": 1}])

    assert (typo.line, typo.column) == (2, 13)
    assert "emial; did you mean email?" in typo.message


def test_a_finding_has_its_place_once():
    finding = placed(Finding("error", "a.jsonnet:2:3: no; hint", "", "a.jsonnet", 2, 3), "x", None)

    assert finding.message == "no; hint"


def test_a_field_that_is_added_to_is_found(tmp_path):
    bundle = bundle_of(tmp_path, "{ a: 1 } {\n  partial+: 2 }")

    assert placed(Finding("error", "partial stands there"), "t", bundle).line == 2


def test_what_shaping_left_out_is_explained():
    body = {"users": [{"attributes": {"age": "x", "city": "", "email_optin": "t", "name": "Ann"}}]}
    sent = {"users": [{"attributes": {"email_optin": True, "name": "Ann"}}], "skip_hook": True}

    changes = {one.path: (one.did, one.why) for one in changes_of(body, sent, ["attributes.age"])}

    assert changes["users[0].attributes.age"] == ("left out", "it is not valid")
    assert changes["users[0].attributes.city"][1].startswith("it is empty")
    assert changes["users[0].attributes.email_optin"] == ("changed", "its form is corrected")
    assert changes["skip_hook"][0] == "added"
    assert "users[0].attributes.name" not in changes


def previewed(body):
    return Previewed("1", Rendered(orjson.dumps(body)))


def test_differences_are_counted_by_field_without_values():
    before = [previewed({"users": [{"a": "secret", "b": 1}]})] * 3
    after = [
        previewed({"users": [{"a": 5, "c": True}]}),
        previewed({"users": [{"a": "secret", "b": 1}]}),
        Previewed("1", Asserted("no")),
    ]

    found = compared(before, after)

    assert (found["events"], found["different"]) == (3, 2)
    assert found["outcomes"] == {"rendered → skipped": 1}
    assert found["rendered"]["users[].a"]["kinds"] == {"text → number": 1}
    assert (found["rendered"]["users[].b"]["removed"], found["rendered"]["users[].c"]["added"]) == (
        1,
        1,
    )
    assert "secret" not in str(found)
