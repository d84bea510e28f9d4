"""What the checks say of triggers that have to fit together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from segrelay.jsonnet.rendered import Result, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import Finding, Render
from segrelay.worker.checks.triggers import check_triggers
from tests.configuration import trigger
from tests.unit.worker.checks.trigger_findings import (
    ENTERS,
    LEAVES,
    LEAVES_A_NOTE,
    NOW,
    OTHER_LIST,
    SHIPPED,
    written,
)


def together(folder: Path, *triggers: dict[str, Any]) -> list[tuple[str, str]]:
    """Check shipped templates of several triggers; return the warnings that are found."""
    found = found_in(folder, *triggers)
    assert {finding.severity for finding in found} <= {"warning"}
    return [(finding.trigger, finding.message) for finding in found]


@cache
def rendering(templates: Path) -> Render:
    """Return what renders templates of a folder; the same is rendered once."""
    renderer = Renderer(templates, LYTEMPLATES, compiles=False)
    load, known = cache(renderer.load), {}

    def render(template: str, rows: Sequence[Row]) -> Sequence[Result]:
        key = (template, *((row.profile, str(row.settings)) for row in rows))
        if key not in known:
            known[key] = renderer.render(load(template), rows)
        return known[key]

    return render


def found_in(folder: Path, *triggers: dict[str, Any], templates: Path = SHIPPED) -> list[Finding]:
    """Check templates of several triggers, shipped ones by default."""
    tables = [trigger(f"t-{number}", **fields) for number, fields in enumerate(triggers)]
    settings = written(folder, *tables, templates=templates)
    return check_triggers(settings, NOW, rendering(templates))


FLAG_ENTERS = {**ENTERS, "template": "insider/flag-enter.jsonnet"}
FLAG_LEAVES = {**ENTERS, "on": "exit", "template": "insider/flag-exit.jsonnet"}


def about(audiences: list[str], *triggers: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**one, "audiences": audiences} for one in triggers]


@pytest.mark.parametrize(
    "triggers",
    [
        [ENTERS, LEAVES, LEAVES_A_NOTE],
        [{**ENTERS, **OTHER_LIST}, {**LEAVES, **OTHER_LIST}],
        about(["*"], ENTERS, LEAVES),
        # An id on exit may mean the slug on enter.
        [ENTERS, *about(["0f" * 16], LEAVES)],
        # A boolean attribute is a way out as well.
        about(["vip"], FLAG_ENTERS, FLAG_LEAVES),
        about(["*"], FLAG_ENTERS, FLAG_LEAVES),
        about(["vip", "new"], FLAG_ENTERS, FLAG_LEAVES),
    ],
)
def test_triggers_that_fit_together_have_no_findings(
    tmp_path: Path, triggers: list[dict[str, Any]]
) -> None:
    assert together(tmp_path, *triggers) == []


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


def test_a_sample_without_an_identifier_tells_nothing_about_it(tmp_path: Path) -> None:
    entry = {"id": "a" * 32, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}
    sample = {"email": "ann@example.com", "segment_events": [entry]}
    (tmp_path / "own.json").write_bytes(orjson.dumps(sample))

    assert found_in(tmp_path, {**ENTERS, "sample": "own.json"}, LEAVES) == []


@pytest.mark.parametrize(
    ("triggers", "says"),
    [
        ([ENTERS], "nothing takes vip out of lytics_computed_attr again"),
        ([ENTERS, LEAVES_A_NOTE], "nothing takes vip out of lytics_computed_attr again"),
        ([*about(["vip", "new"], ENTERS), LEAVES],
         "nothing takes new out of lytics_computed_attr again"),
        ([*about(["*"], ENTERS), LEAVES],
         "nothing takes any audience out of lytics_computed_attr again"),
        ([ENTERS, {**LEAVES, **OTHER_LIST}],
         "adds vip to lytics_computed_attr, but t-1 takes it out of audiences"),
        ([FLAG_ENTERS, *about(["new"], FLAG_LEAVES)],
         "nothing takes vip out of lytics_in_… again"),
        ([FLAG_ENTERS, *about(["new"], FLAG_LEAVES)],
         "insider/flag-exit.jsonnet and /api/user/v1/upsert"),
        ([FLAG_ENTERS, LEAVES], "adds vip to lytics_in_…, but t-1 takes it out of lytics_comp"),
        ([ENTERS, FLAG_LEAVES],
         "adds vip to lytics_computed_attr, but t-1 takes it out of lytics_i"),
        ([FLAG_ENTERS, {**FLAG_LEAVES, "settings": {"audience_flag_prefix": "seg_"}}],
         "give both the same audience_flag_prefix"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_named(
    tmp_path: Path, triggers: list[dict[str, Any]], says: str
) -> None:
    [(trigger, message)] = together(tmp_path, *triggers)

    assert trigger in {"t-0", ""}
    assert says in message


def test_audiences_whose_attributes_have_one_name_are_an_error(tmp_path: Path) -> None:
    own = {"audiences": ["cart-open", "cart_open", "other"]}

    [found] = found_in(tmp_path, {**FLAG_ENTERS, **own}, {**FLAG_LEAVES, **own})

    assert found.severity == "error"
    assert "cart-open, cart_open have one attribute, lytics_in_cart_open" in found.message
