"""What the checks say of triggers that have to fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import renders_with
from segrelay.worker.checks.samples import Finding
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


def found_in(folder: Path, *triggers: dict[str, Any], templates: Path = SHIPPED) -> list[Finding]:
    """Check templates of several triggers, shipped ones by default."""
    tables = [trigger(f"t-{number}", **fields) for number, fields in enumerate(triggers)]
    settings = written(folder, *tables, templates=templates)
    return check_triggers(
        settings, NOW, renders_with(Renderer(templates, LYTEMPLATES, compiles=False))
    )


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


def test_a_sample_without_an_identifier_tells_nothing_about_it(tmp_path: Path) -> None:
    entry = {"id": "a" * 32, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}
    sample = {"email": "ann@example.com", "segment_events": [entry]}
    (tmp_path / "own.json").write_bytes(orjson.dumps(sample))

    assert found_in(tmp_path, {**ENTERS, "sample": "own.json"}, LEAVES) == []


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
