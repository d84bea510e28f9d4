"""The templates as the documentation page prints them: users have them."""

from datetime import UTC, datetime

import pytest

from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.jsonnet.renderer import Renderer
from segrelay.ops.templates.check import check_template
from segrelay.ops.templates.workspace import Case
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import sample_profile
from segrelay.worker.contract.words import Direction

NOW = datetime(2027, 2, 20, 12, tzinfo=UTC)


def test_the_entrance_template_renders_unmodified(agreed, here):
    profile = {
        "email": "ann@example.com",
        "_id": "7",
        "_segments": ["vip", "news"],
        "age": 34,
        "segment_events": [
            {"id": "a" * 32, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00.5Z"}
        ],
    }

    [body] = agreed(here, "page_entrance.jsonnet", [profile])

    [user] = body["users"]
    assert user["not_append"] is True
    assert user["identifiers"]["custom"] == {"lytics_id": "7", "lytics_last_uid": ""}
    assert user["attributes"]["age"] == 34
    assert user["attributes"]["custom"]["lytics_computed_attr"] == ["vip", "news"]
    assert user["events"][0]["timestamp"] == "2026-11-01T10:00:00.5Z"


def test_the_check_warns_that_it_overwrites_the_list(here):
    case = Case("enter", sample_profile(Direction.ENTER, NOW), {})

    report = check_template(here, "page_entrance.jsonnet", [case])

    assert report.is_fit
    assert [finding.severity for finding in report.findings] == ["warning"]
    assert "not_append: true overwrites lytics_computed_attr" in report.findings[0].message


def test_the_exit_template_is_refused_with_the_place_of_its_damage(here):
    with pytest.raises(TemplateBroken) as caught:
        Renderer(here, LYTEMPLATES).load("page_exit.jsonnet")

    error = caught.value
    assert (error.file, error.line, error.column) == ("page_exit.jsonnet", 4, 9)
    assert '"\\["' in error.message
    assert "Markdown" in error.message
