"""Configurations of triggers, and what the checks find in them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import Finding, render_of
from segrelay.worker.checks.triggers import check_trigger
from segrelay.worker.contract.settings import Settings, load_settings
from tests.configuration import insider, table, trigger

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
    render = render_of(Renderer(settings.templates_folder, LYTEMPLATES))
    return list(check_trigger(settings, settings.triggers["vip"], NOW, render)[1])


def the_one(found: list[Finding]) -> tuple[str, str]:
    assert len(found) == 1, found
    assert found[0].trigger == "vip"
    return found[0].severity, found[0].message


EXIT = {"on": "exit", "url": "/api/user/v1/attribute/delete"}
ENTERS = {"on": "enter", "template": "insider/enter.jsonnet", "url": "/api/user/v1/upsert"}
LEAVES = {"template": "insider/exit.jsonnet", **EXIT}
LEAVES_A_NOTE = {**ENTERS, "on": "exit", "template": "insider/exit-event.jsonnet"}
OTHER_LIST = {"settings": {"audience_attribute": "audiences"}}
