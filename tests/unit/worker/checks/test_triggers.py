"""Templates tried on samples before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from segrelay.jsonnet.rendered import Killed
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.triggers import check_trigger, check_triggers
from tests.configuration import trigger
from tests.unit.worker.checks.trigger_findings import (
    ENTERS,
    EXIT,
    NOW,
    OTHER_LIST,
    PAGE,
    findings,
    settings_of,
    the_one,
    written,
)


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("insider/enter.jsonnet", {}),
        ("insider/enter.jsonnet", {"identity": "id"}),
        ("insider/enter.jsonnet", {"on": "change"}),
        ("insider/exit.jsonnet", EXIT),
        ("insider/exit.jsonnet", {**EXIT, "identity": "id"}),
        ("insider/exit-event.jsonnet", {"on": "exit"}),
    ],
)
def test_what_is_right_has_no_findings(
    tmp_path: Path, template: str, fields: dict[str, Any]
) -> None:
    assert findings(tmp_path, template, **fields) == []


def test_an_entrance_template_on_the_delete_path_is_an_error(tmp_path: Path) -> None:
    severity, message = the_one(findings(tmp_path, "insider/enter.jsonnet", **EXIT))

    assert severity == "error"
    assert "does not fit /api/user/v1/attribute/delete" in message


def test_an_exit_template_on_the_upsert_path_is_an_error(tmp_path: Path) -> None:
    severity, _ = the_one(findings(tmp_path, "insider/exit.jsonnet", on="exit"))

    assert severity == "error"


def test_a_template_that_does_not_parse_is_an_error_with_its_place(tmp_path: Path) -> None:
    severity, message = the_one(findings(tmp_path, '{\n  "users": \\[\n}'))

    assert severity == "error"
    assert "t.jsonnet:2:" in message


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("assert false : 'not for samples'; {}", "not for samples"),
        ("{users: [\nerror 'no']}", "no"),
        ('{users: [{identifiers: {email: ""}, attributes: {name: "Ann"}}]}', "no valid identifier"),
    ],
)
def test_failing_on_a_sample_is_a_warning_unless_the_sample_is_the_triggers_own(
    tmp_path: Path, template: str, told: str
) -> None:
    sample = {"email": "bob@example.com", "segment_events": [{"slug": "vip", "event": "enter"}]}
    (tmp_path / "own.json").write_bytes(orjson.dumps(sample))

    shipped = [f for f in findings(tmp_path, template) if told in f.message]
    own = [f for f in findings(tmp_path, template, sample="own.json") if told in f.message]

    assert the_one(shipped)[0] == "warning"
    assert the_one(own)[0] == "error"


def test_a_sample_without_an_event_of_the_direction_is_an_error(tmp_path: Path) -> None:
    sample = {"email": "bob@example.com", "segment_events": [{"slug": "vip", "event": "enter"}]}
    (tmp_path / "own.json").write_bytes(orjson.dumps(sample))

    found = findings(tmp_path, "insider/exit-event.jsonnet", on="exit", sample="own.json")

    assert the_one(found) == (
        "error",
        f"{tmp_path / 'own.json'}: holds no exit event, which this trigger is for.",
    )


def test_an_identity_that_is_not_sent_as_an_identifier_is_a_warning(tmp_path: Path) -> None:
    template = '{users: [{identifiers: {uuid: "u7"}, attributes: {name: "Ann"}}]}'

    severity, message = the_one(findings(tmp_path, template))

    assert severity == "warning"
    assert "identity field `email`" in message


CRM: dict[str, Any] = {"destination": "crm", "url": "/in"}


@pytest.mark.parametrize("template", ["slack/message.jsonnet", "meta/conversion.jsonnet"])
def test_a_message_about_nobody_and_a_hashed_identity_are_no_warning(
    tmp_path: Path, template: str
) -> None:
    assert findings(tmp_path, template, **CRM) == []


def test_an_identity_in_the_url_is_sent(tmp_path: Path) -> None:
    fields = {**CRM, "url": {"template": "member-url.jsonnet"}}
    template = '{uid: (import "lytemplates.libsonnet").get("_id")}'
    (tmp_path / "templates").mkdir()
    url = '"/members/" + (import "lytemplates.libsonnet").get("email")'
    (tmp_path / "templates/member-url.jsonnet").write_text(url)

    assert findings(tmp_path, template, **fields) == []


def test_an_endpoint_that_gets_another_identifier_only_is_a_warning(tmp_path: Path) -> None:
    template = '{uid: (import "lytemplates.libsonnet").get("_id")}'

    severity, message = the_one(findings(tmp_path, template, **CRM))

    assert severity == "warning"
    assert "identity field `email`" in message


def test_what_is_left_out_is_a_warning_with_names(tmp_path: Path) -> None:
    user = 'identifiers: {email: event.get("email")}, attributes: {name: "Ann", shoe: 41}'
    template = f'local event = import "lytemplates.libsonnet"; {{users: [{{{user}}}]}}'

    severity, message = the_one(findings(tmp_path, template))

    assert severity == "warning"
    assert message.endswith("attributes.shoe")


def test_overwriting_the_list_is_a_warning(tmp_path: Path) -> None:
    severity, message = the_one(findings(tmp_path, PAGE))

    assert severity == "warning"
    assert "not_append: true overwrites lytics_computed_attr" in message


def test_overwriting_the_list_on_exit_says_how_exits_are_sent(tmp_path: Path) -> None:
    found = findings(tmp_path, PAGE, on="exit")

    assert {finding.severity for finding in found} == {"warning"}
    assert any("attribute/delete" in finding.message for finding in found)


BODY = """local event = import "lytemplates.libsonnet";
local id = {{email: event.get("email"), custom: {{lytics_id: event.get("_id")}}}};
{{users: [{{identifiers: id, {user}}}], {root}}}
"""


@pytest.mark.parametrize(
    ("fields", "user", "told"),
    [
        (EXIT, 'custom: {partial: {lytics_computed_attr: event.get("_segments")}}',
         "deletes newsletter from lytics_computed_attr"),
        (EXIT, 'custom: {whole: ["lytics_computed_attr"]}', "as a whole"),
        (EXIT, 'whole: ["email"], custom: {whole: ["lytics_id", "status"]}',
         "deletes email, custom.lytics_id: Insider can't delete"),
    ],
)  # fmt: skip
def test_an_exit_that_deletes_what_it_should_not_is_named(
    tmp_path: Path, fields: dict[str, Any], user: str, told: str
) -> None:
    severity, message = the_one(findings(tmp_path, BODY.format(user=user, root=""), **fields))

    assert severity == "warning"
    assert told in message


def test_a_callback_without_encryption_is_named(tmp_path: Path) -> None:
    root = 'error_callback_endpoint: "http://errors.example.com"'
    template = BODY.format(user='attributes: {name: "Ann"}', root=root)

    severity, message = the_one(findings(tmp_path, template))

    assert severity == "warning"
    assert "unencrypted" in message


def test_a_template_that_writes_to_another_list_than_its_settings_name_is_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "templates").mkdir()
    user = "attributes: {custom: {lytics_computed_attr: [event.segSlug()]}}"
    (tmp_path / "templates" / "t.jsonnet").write_text(BODY.format(user=user, root=""))
    writes = trigger("vip", **{**ENTERS, **OTHER_LIST, "template": "t.jsonnet"})

    found = check_triggers(written(tmp_path, writes, templates=tmp_path / "templates"), NOW)

    assert "settings name audiences" in the_one(found)[1]


def test_a_template_that_kills_its_process_is_an_error(tmp_path: Path) -> None:
    class Deadly(Renderer):
        def render(self, *_: Any) -> Any:
            return [Killed()]

    settings = settings_of(tmp_path, "insider/enter.jsonnet")
    renderer = Deadly(settings.templates_folder, LYTEMPLATES)
    found = list(check_trigger(settings, settings.triggers["vip"], renderer, NOW))

    assert the_one(found)[0] == "error"


def test_any_json_suits_an_http_destination(tmp_path: Path) -> None:
    template = 'local event = import "lytemplates.libsonnet"; {mail: event.get("email")}'

    assert findings(tmp_path, template, destination="crm", url="/in") == []


HTTP = {"destination": "crm", "url": "/people"}


@pytest.mark.parametrize(
    ("template", "http", "says"),
    [
        ('"email=" + "ann@example.com"', {}, "yields a text, but the encoding is"),
        ('{a: "b"}', {"encoding": "text"}, "yields no text, but the encoding is"),
        ("[1]", {"encoding": "form"}, "yields no object, but the encoding is"),
    ],
)
def test_a_value_of_another_kind_than_the_encoding_is_an_error(tmp_path, template, http, says):
    [found] = findings(tmp_path, template, http=http, **HTTP)

    assert found.severity == "error"
    assert says in found.message


def test_templates_of_url_headers_and_body_are_tried_together(tmp_path):
    (tmp_path / "templates").mkdir()
    for name, text in (("url", '"//evil.example.org/"'), ("header", '"a\\nb"')):
        (tmp_path / "templates" / f"{name}.jsonnet").write_text(text)
    body = 'local event = import "lytemplates.libsonnet"; { email: event.get("email") }'
    url = {"template": "url.jsonnet"}
    header = {"headers": {"X-A": {"template": "header.jsonnet"}}}

    [at_url] = findings(tmp_path, body, destination="crm", url={"template": "header.jsonnet"})
    [at_header] = findings(tmp_path, body, http=header, **HTTP)

    assert "URL is refused" in at_url.message
    assert "X-A" in at_header.message
    assert findings(tmp_path, body, destination="crm", url=url) == []
