"""Who is right where engines disagree."""

from __future__ import annotations

from typing import Any

import pytest

from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.rendered import Rendered, TemplateFailed
from segrelay.ops.templates.check import disagreements

RENDERED = Rendered(b'{"a":1}')
SAME, OTHER, FAILED = '{"a": 1.0}', '{"a": 1.5}', Failure("no such function")


@pytest.mark.parametrize(
    ("said", "severities"),
    [
        ({"rjsonnet": SAME, "jsonnet": SAME, "gojsonnet": SAME}, []),
        ({"rjsonnet": SAME}, []),
        ({"rjsonnet": SAME, "jsonnet": None, "gojsonnet": None}, []),
        ({"rjsonnet": SAME, "jsonnet": OTHER, "gojsonnet": SAME}, ["warning"]),
        ({"rjsonnet": SAME, "jsonnet": FAILED, "gojsonnet": SAME}, ["warning"]),
        ({"rjsonnet": SAME, "jsonnet": OTHER}, ["error"]),
        ({"rjsonnet": SAME, "jsonnet": OTHER, "gojsonnet": None}, ["error"]),
        ({"rjsonnet": SAME, "jsonnet": SAME, "gojsonnet": OTHER}, ["error"]),
        ({"rjsonnet": SAME, "jsonnet": OTHER, "gojsonnet": OTHER}, ["error", "error"]),
        ({"rjsonnet": OTHER, "jsonnet": OTHER, "gojsonnet": SAME}, ["error", "error"]),
    ],
)
def test_the_reference_alone_is_outvoted(said: dict[Any, Any], severities: list[str]) -> None:
    found = list(disagreements("enter", RENDERED, said))

    assert [finding.severity for finding in found] == severities


def test_the_first_difference_is_shown_with_its_place() -> None:
    [finding] = disagreements("enter", RENDERED, {"jsonnet": OTHER})

    assert finding.message.endswith("disagree about the sample (enter): 1, 1.5, at a.")


def test_all_that_fail_agree() -> None:
    assert not list(disagreements("enter", TemplateFailed("x", "", 0), {"jsonnet": FAILED}))
