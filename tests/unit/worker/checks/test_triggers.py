"""Templates tried on samples before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segrelay.jsonnet.rendered import Killed
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

ENTRANCE = b'{"email": "bob@example.com", "segment_events": [{"slug": "vip", "event": "enter"}]}'
CRM: dict[str, Any] = {"destination": "crm", "url": "/in"}
LIBRARY = 'local event = import "lytemplates.libsonnet"; '


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("insider/enter.jsonnet", {}),
        ("insider/enter.jsonnet", {"identity": "id"}),
        ("insider/enter.jsonnet", {"on": "change"}),
        ("insider/exit.jsonnet", EXIT),
        ("insider/exit.jsonnet", {**EXIT, "identity": "id"}),
        ("insider/exit-event.jsonnet", {"on": "exit"}),
        ("slack/message.jsonnet", CRM),
        ("meta/conversion.jsonnet", CRM),
        (LIBRARY + '{mail: event.get("email")}', CRM),
    ],
)
def test_what_is_right_has_no_findings(
    tmp_path: Path, template: str, fields: dict[str, Any]
) -> None:
    assert findings(tmp_path, template, **fields) == []


BODY = """local event = import "lytemplates.libsonnet";
local id = {{email: event.get("email"), custom: {{lytics_id: event.get("_id")}}}};
{{users: [{{identifiers: id, {user}}}], {root}}}
"""
SHOE = 'identifiers: {email: event.get("email")}, attributes: {name: "Ann", shoe: 41}'


def exiting(user: str) -> str:
    return BODY.format(user=user, root="")


@pytest.mark.parametrize(
    ("template", "fields", "severity", "told"),
    [
        ("insider/enter.jsonnet", EXIT, "error", "does not fit /api/user/v1/attribute/delete"),
        ("insider/exit.jsonnet", {"on": "exit"}, "error", "does not fit /api/user/v1/upsert"),
        ('{\n  "users": \\[\n}', {}, "error", "t.jsonnet:2:"),
        (
            '{users: [{identifiers: {uuid: "u7"}, attributes: {name: "Ann"}}]}', {},
            "warning", "identity field `email`",
        ),
        (LIBRARY + f"{{users: [{{{SHOE}}}]}}", {}, "warning", ": attributes.shoe"),
        (PAGE, {}, "warning", "not_append: true overwrites lytics_computed_attr"),
        (
            exiting('custom: {partial: {lytics_computed_attr: event.get("_segments")}}'), EXIT,
            "warning", "deletes newsletter from lytics_computed_attr",
        ),
        (exiting('custom: {whole: ["lytics_computed_attr"]}'), EXIT, "warning", "as a whole"),
        (
            exiting('whole: ["email"], custom: {whole: ["lytics_id", "status"]}'), EXIT,
            "warning", "deletes email, custom.lytics_id: Insider can't delete",
        ),
        (
            BODY.format(
                user='attributes: {name: "Ann"}',
                root='error_callback_endpoint: "http://errors.example.com"',
            ), {}, "warning", "unencrypted",
        ),
        (
            '"email=" + "ann@example.com"', CRM,
            "error", "yields a text, but the encoding is",
        ),
        (
            '{a: "b"}', {**CRM, "http": {"encoding": "text"}},
            "error", "yields no text, but the encoding is",
        ),
        (
            "[1]", {**CRM, "http": {"encoding": "form"}},
            "error", "yields no object, but the encoding is",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, template: str, fields: dict[str, Any], severity: str, told: str
) -> None:
    found, message = the_one(findings(tmp_path, template, **fields))

    assert (found, told in message) == (severity, True), message


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
    (tmp_path / "own.json").write_bytes(ENTRANCE)

    shipped = [f for f in findings(tmp_path, template) if told in f.message]
    own = [f for f in findings(tmp_path, template, sample="own.json") if told in f.message]

    assert the_one(shipped)[0] == "warning"
    assert the_one(own)[0] == "error"


def test_a_sample_without_an_event_of_the_direction_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes(ENTRANCE)

    found = findings(tmp_path, "insider/exit-event.jsonnet", on="exit", sample="own.json")

    assert the_one(found) == (
        "error",
        f"{tmp_path / 'own.json'}: holds no exit event, which this trigger is for.",
    )


def test_an_identity_in_the_url_is_sent(tmp_path: Path) -> None:
    fields = {**CRM, "url": {"template": "member-url.jsonnet"}}
    template = '{uid: (import "lytemplates.libsonnet").get("_id")}'
    (tmp_path / "templates").mkdir()
    url = '"/members/" + (import "lytemplates.libsonnet").get("email")'
    (tmp_path / "templates/member-url.jsonnet").write_text(url)

    assert findings(tmp_path, template, **fields) == []


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
    settings = settings_of(tmp_path, "insider/enter.jsonnet")
    _, found = check_trigger(settings, settings.triggers["vip"], NOW, lambda *_: [Killed()])

    assert the_one(found)[0] == "error"


def test_templates_of_url_headers_and_body_are_tried_together(tmp_path):
    (tmp_path / "templates").mkdir()
    for name, text in (("url", '"//evil.example.org/"'), ("header", '"a\\nb"')):
        (tmp_path / "templates" / f"{name}.jsonnet").write_text(text)
    body = 'local event = import "lytemplates.libsonnet"; { email: event.get("email") }'
    url = {"template": "url.jsonnet"}
    header = {"headers": {"X-A": {"template": "header.jsonnet"}}}

    [at_url] = findings(tmp_path, body, destination="crm", url={"template": "header.jsonnet"})
    [at_header] = findings(tmp_path, body, http=header, **CRM)

    assert "URL is refused" in at_url.message
    assert "X-A" in at_header.message
    assert findings(tmp_path, body, destination="crm", url=url) == []
