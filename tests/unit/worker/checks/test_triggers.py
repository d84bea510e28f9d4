"""Templates tried on samples before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.configuration import insider, table, trigger
from worker.checks.finding import Finding
from worker.checks.triggers import check_trigger, check_triggers
from worker.contract.settings import Settings, load_settings
from worker.jsonnet.rendered import Killed
from worker.jsonnet.renderer import Renderer

SHIPPED = Path(__file__).parents[4] / "templates"
NOW = datetime(2027, 2, 20, 12, tzinfo=UTC)
PAGE = """local event = (import "lytemplates.libsonnet");
local details = event.get("segment_events", "")[0];
{users: [{
  insider_id: event.get("insider_id", ""),
  identifiers: {email: event.get("email", ""), custom: {lytics_id: event.get("_id", "")}},
  attributes: {age: event.get("age", ""), custom: {lytics_computed_attr: event.get("_segments")}},
  not_append: true,
  events: [{event_name: "lytics_trigger", timestamp: details[details.event]}],
}]}
"""
DESTINATIONS = insider() + table(
    "destinations.crm", api="http", base_url="https://crm.example.com", rate="100/min"
)


def settings_of(folder: Path, template: str, **fields: Any) -> Settings:
    """Write a configuration with one trigger; `template` is the name of a file or its content."""
    templates = SHIPPED
    name = template
    if not template.endswith(".jsonnet"):
        templates = folder / "templates"
        templates.mkdir(exist_ok=True)
        name = "t.jsonnet"
        (templates / name).write_text(template)
    identity = fields.pop("identity", "email")
    tables = table("delivery", identity=identity), trigger("vip", **{"template": name, **fields})
    return written(folder, *tables, templates=templates)


def written(folder: Path, *tables: str, templates: Path = SHIPPED) -> Settings:
    """Write and load a configuration with both destinations."""
    path = folder / "segrelay.toml"
    path.write_text(f'templates = "{templates}"\n' + "".join([DESTINATIONS, *tables]))
    return load_settings(path, environ={})


def findings(folder: Path, template: str, **fields: Any) -> list[Finding]:
    settings = settings_of(folder, template, **fields)
    renderer = Renderer(settings.templates_folder)
    return list(check_trigger(settings, settings.triggers["vip"], renderer, NOW))


def the_one(found: list[Finding]) -> tuple[str, str]:
    assert len(found) == 1, found
    assert found[0].trigger == "vip"
    return found[0].severity, found[0].message


EXIT = {"on": "exit", "url": "/api/user/v1/attribute/delete"}


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


def together(folder: Path, *triggers: dict[str, Any]) -> list[tuple[str, str]]:
    """Check shipped templates of several triggers; return the warnings that are found."""
    found = found_in(folder, *triggers)
    assert {finding.severity for finding in found} <= {"warning"}
    return [(finding.trigger, finding.message) for finding in found]


def found_in(folder: Path, *triggers: dict[str, Any], templates: Path = SHIPPED) -> list[Finding]:
    """Check templates of several triggers, shipped ones by default, in processes of their own."""
    tables = [trigger(f"t-{number}", **fields) for number, fields in enumerate(triggers)]
    return check_triggers(written(folder, *tables, templates=templates), NOW)


ENTERS = {"on": "enter", "template": "insider/enter.jsonnet", "url": "/api/user/v1/upsert"}
LEAVES = {"template": "insider/exit.jsonnet", **EXIT}
LEAVES_A_NOTE = {**ENTERS, "on": "exit", "template": "insider/exit-event.jsonnet"}
OTHER_LIST = {"settings": {"audience_attribute": "audiences"}}


def test_triggers_that_fit_together_have_no_findings(tmp_path: Path) -> None:
    assert together(tmp_path, ENTERS, LEAVES, LEAVES_A_NOTE) == []
    assert together(tmp_path, {**ENTERS, **OTHER_LIST}, {**LEAVES, **OTHER_LIST}) == []
    assert together(tmp_path, {**ENTERS, "audiences": ["*"]}, {**LEAVES, "audiences": ["*"]}) == []


@pytest.mark.parametrize(
    ("triggers", "audiences"),
    [
        ([ENTERS], "vip"),
        ([ENTERS, LEAVES_A_NOTE], "vip"),
        ([{**ENTERS, "audiences": ["vip", "new"]}, LEAVES], "new"),
        ([{**ENTERS, "audiences": ["*"]}, LEAVES], "any audience"),
    ],
)
def test_an_audience_with_enters_and_no_exit_is_named(
    tmp_path: Path, triggers: list[dict[str, Any]], audiences: str
) -> None:
    [(trigger, message)] = together(tmp_path, *triggers)

    assert trigger == "t-0"
    assert message.startswith(f"nothing takes {audiences} out of lytics_computed_attr again")


def test_an_id_on_exit_may_mean_the_slug_on_enter(tmp_path: Path) -> None:
    assert together(tmp_path, ENTERS, {**LEAVES, "audiences": ["0f" * 16]}) == []


def test_enter_and_exit_with_different_lists_are_named(tmp_path: Path) -> None:
    [(trigger, message)] = together(tmp_path, ENTERS, {**LEAVES, **OTHER_LIST})

    assert trigger == "t-0"
    assert "adds vip to lytics_computed_attr, but t-1 takes it out of audiences" in message


@pytest.mark.parametrize(("field", "is_named"), [("_uid", True), ("_id", False)])
def test_an_exit_that_identifies_people_in_another_way_is_named(
    tmp_path: Path, field: str, *, is_named: bool
) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "enter.jsonnet").write_text((SHIPPED / "insider" / "enter.jsonnet").read_text())
    (templates / "exit.jsonnet").write_text(
        f"""local event = import "lytemplates.libsonnet";
        {{users: [{{
          identifiers: {{email: event.get("email"), custom: {{lytics_id: event.get("{field}")}}}},
          custom: {{partial: {{lytics_computed_attr: [event.segSlug()]}}}},
        }}]}}"""
    )
    triggers = ({**ENTERS, "template": "enter.jsonnet"}, {**LEAVES, "template": "exit.jsonnet"})

    found = found_in(tmp_path, *triggers, templates=templates)

    assert ["takes custom.lytics_id from another field" in one.message for one in found] == (
        [True] * is_named
    )


FLAG_ENTERS = {**ENTERS, "template": "insider/flag-enter.jsonnet"}
FLAG_LEAVES = {**ENTERS, "on": "exit", "template": "insider/flag-exit.jsonnet"}


@pytest.mark.parametrize("audiences", [["vip"], ["*"], ["vip", "new"]])
def test_a_boolean_attribute_is_a_way_out_as_well(tmp_path: Path, audiences: list[str]) -> None:
    own = {"audiences": audiences}

    assert together(tmp_path, {**FLAG_ENTERS, **own}, {**FLAG_LEAVES, **own}) == []


def test_a_boolean_attribute_without_exits_is_named_with_what_unsets_it(tmp_path: Path) -> None:
    [(trigger, message)] = together(tmp_path, FLAG_ENTERS, {**FLAG_LEAVES, "audiences": ["new"]})

    assert trigger == "t-0"
    assert message.startswith("nothing takes vip out of lytics_in_… again")
    assert "insider/flag-exit.jsonnet and /api/user/v1/upsert" in message


@pytest.mark.parametrize(
    ("triggers", "says"),
    [
        ([FLAG_ENTERS, LEAVES], "adds vip to lytics_in_…, but t-1 takes it out of lytics_comp"),
        (
            [ENTERS, FLAG_LEAVES],
            "adds vip to lytics_computed_attr, but t-1 takes it out of lytics_i",
        ),
        (
            [FLAG_ENTERS, {**FLAG_LEAVES, "settings": {"audience_flag_prefix": "seg_"}}],
            "give both the same audience_flag_prefix",
        ),
    ],
)
def test_the_two_membership_models_do_not_mix(
    tmp_path: Path, triggers: list[dict[str, Any]], says: str
) -> None:
    [(trigger, message)] = together(tmp_path, *triggers)

    assert trigger == "t-0"
    assert says in message


def test_audiences_whose_attributes_have_one_name_are_an_error(tmp_path: Path) -> None:
    own = {"audiences": ["cart-open", "cart_open", "other"]}

    [found] = found_in(tmp_path, {**FLAG_ENTERS, **own}, {**FLAG_LEAVES, **own})

    assert found.severity == "error"
    assert "cart-open, cart_open have one attribute, lytics_in_cart_open" in found.message


def test_more_attributes_than_an_account_has_are_named(tmp_path: Path) -> None:
    own = {"audiences": [f"a{number}" for number in range(81)]}

    [found] = found_in(tmp_path, {**FLAG_ENTERS, **own}, {**FLAG_LEAVES, **own})

    assert found.severity == "warning"
    assert "81 audiences have an attribute each" in found.message


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
    renderer = Deadly(settings.templates_folder)
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
