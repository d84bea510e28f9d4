"""Templates that fail for an event without the id of its audience."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import ANY_ID, render_of
from segrelay.worker.checks.triggers import check_without_ids
from segrelay.worker.contract.settings import Settings
from tests.configuration import lytics, table, trigger
from tests.unit.worker.checks.trigger_findings import NOW, SHIPPED, written

READS_ID = """local event = import "lytemplates.libsonnet";
local details = event.get("segment_events")[0];
{users: [{identifiers: {email: event.get("email")},
  attributes: {custom: {id: details["id"]}}}]}
"""
FAILS_ALWAYS = 'local details = std.native("nothing"); error "no"'


def sync(name: str = "vip", **fields: Any) -> str:
    return table(f"sync.{name}", **{"audience": "vip", "every": "15m", **fields})


def settings_of(folder: Path, *tables: str, template: str = READS_ID, **fields: Any) -> Settings:
    templates = folder / "templates"
    templates.mkdir()
    (templates / "any.jsonnet").write_text(template)
    tables = (trigger("vip", **fields), lytics("http://127.0.0.1:9"), *tables)
    return written(folder, *tables, templates=templates)


def warnings(settings: Settings, *identified: str) -> list[str]:
    render = render_of(Renderer(settings.templates_folder, LYTEMPLATES))
    found = check_without_ids(settings, identified, NOW, render)
    assert all((one.severity, one.trigger) == ("warning", "vip") for one in found)
    return [one.message for one in found]


def test_a_template_that_reads_the_id_is_named_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    [message] = warnings(settings_of(tmp_path, sync()))

    assert message.startswith("any.jsonnet:4: no such field: id.")
    assert "as long as no id is known for vip, and die of this" in message
    assert "`segrelay audience set ID vip`" in message


@pytest.mark.parametrize(
    ("tables", "fields", "identified", "warned"),
    [
        ([], {}, [], 1),
        ([], {"audiences": ["*"]}, [], 1),
        ([], {"on": "exit"}, [], 1),
        ([sync(on_change=True)], {"on": "change"}, [], 1),
        ([sync()], {"audiences": ["*"]}, [], 1),
        # The id is known, or no row can come.
        ([sync(audience=ANY_ID)], {"audiences": [ANY_ID]}, [], 0),
        ([], {"audiences": [ANY_ID]}, [], 0),
        ([], {}, ["vip", ANY_ID], 0),
        ([sync()], {"audiences": ["*"]}, ["vip"], 0),
        ([], {"on": "change"}, [], 0),
        ([sync()], {"on": "change"}, [], 0),
        # What does not fail for want of the id is told by nobody, or by others.
        ([], {"template": READS_ID.replace('details["id"]', "1")}, [], 0),
        ([], {"template": FAILS_ALWAYS}, [], 0),
        ([], {"template": "{"}, [], 0),
    ],
)
def test_there_is_a_warning_where_no_id_is_known(
    tmp_path: Path, tables: list[str], fields: dict[str, Any], identified: list[str], warned: int
) -> None:
    assert len(warnings(settings_of(tmp_path, *tables, **fields), *identified)) == warned


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("insider/enter.jsonnet", {}),
        ("insider/exit.jsonnet", {"on": "exit", "url": "/api/user/v1/attribute/delete"}),
        ("insider/exit-event.jsonnet", {"on": "exit"}),
        ("insider/flag-enter.jsonnet", {}),
        ("insider/flag-exit.jsonnet", {"on": "exit"}),
        ("http/event.jsonnet", {"destination": "crm", "url": "/events"}),
    ],
)
def test_the_shipped_templates_need_no_id(
    tmp_path: Path, template: str, fields: dict[str, Any]
) -> None:
    tables = trigger("vip", **{"template": template, **fields})

    assert warnings(written(tmp_path, tables, templates=SHIPPED)) == []
