"""Every snippet of snippets.jsonnet over every engine: the same value, or a failure in all."""

import json
import re
from pathlib import Path

import orjson
import pytest

from segrelay.jsonnet.accelerated import Accelerator
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import judge, judges
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Rendered, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from tests.nightly import NIGHTLY

HERE = Path(__file__).parent
NAME = "snippets.jsonnet"
NAMES = re.findall(r"^  (\w+):", (HERE / NAME).read_text(), re.MULTILINE)
DOCUMENT = HERE.parents[2] / "docs" / "templates.md"
SETTINGS = {"audience_attribute": "x", "field": "first_name"}
PROFILE = {
    "first_name": "Ann",
    "nothing": None,
    "list": [1, "a"],
    "map": {"k": 1},
    "email": " Ann@Example.com ",
    "n": 3.0,
    "big": 2**53,
    "f": 2.0,
    "tags": [{"name": "a"}, {}],
    "_segments": ["newsletter"],
    "segment_events": [
        {"id": "0123", "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}
    ],
}
FAILED = "failed"
DIFFERENT = {
    "differs_text_of_fraction": {"rjsonnet": '"0.1"', "others": '"0.10000000000000001"'},
    "differs_padding": {"rjsonnet": '"   é|"', "others": '"    é|"'},
    "differs_fraction_index": {"rjsonnet": FAILED, "jsonnet": FAILED, "gojsonnet": "1"},
}
LEFT = frozenset(
    {
        *("shifts", "comparisons_of_arrays", "foldr", "split_limit", "parse_bases", "sets"),
        *("escape_bash", "format_rare", "sign", "powers", "parity", "set_member", "count", "xor"),
        *("average", "remove", "merge_patch", "base64_decode", "utf8", "lines"),
        *("slice_function", "deep_join", "resolve", "prims", "differs_fraction_index"),
        *("differs_padding", "flatten_deep", "geometry", "angles", "atan2", "filter_map", "uniq"),
        *("codepoint", "manifest", "manifest_json", "equals_ignore_case", "object_remove"),
        *("make_array", "compiled_left_out"),
    }
)
"""What the compiled form leaves to Jsonnet, beside what fails."""
SECONDS = 240


def profiles(names=NAMES):
    return [orjson.dumps({**PROFILE, "snippet": name}) for name in names]


def names_for(engine):
    """Return what an engine is asked: everything, but for the slow one by day."""
    if engine != "jsonnet" or NIGHTLY:
        return NAMES
    return [name for n, name in enumerate(NAMES) if name in DIFFERENT or n % 12 == 0]


def told(value):
    if value is None or isinstance(value, Failure):
        return FAILED
    return json.dumps(json.loads(value), sort_keys=True, ensure_ascii=False)


@pytest.fixture(scope="module")
def said():
    bundle = TemplateFolder(HERE, LYTEMPLATES).bundle(NAME)
    settings = orjson.dumps(SETTINGS)
    return {
        engine: dict(
            zip(
                names_for(engine),
                map(
                    told,
                    judge(engine, bundle, profiles(names_for(engine)), settings, seconds=SECONDS),
                ),
                strict=True,
            )
        )
        for engine in ("rjsonnet", *judges())
    }


def test_there_are_more_than_a_hundred_snippets():
    assert len(NAMES) == len(set(NAMES)) > 100


def test_every_engine_says_the_same_of_each_snippet(said):
    told_of = {
        name: {engine: values[name] for engine, values in said.items() if name in values}
        for name in NAMES
        if name not in DIFFERENT
    }
    different = {name: told for name, told in told_of.items() if len(set(told.values())) > 1}

    assert different == {}


def test_what_should_fail_fails_and_nothing_else_does(said):
    failed = {name for name, value in said["rjsonnet"].items() if value == FAILED}

    assert failed - DIFFERENT.keys() == {name for name in NAMES if name.startswith("fails_")}


def test_known_differences_are_still_there_and_are_documented(said):
    for name, values in DIFFERENT.items():
        for engine, answers in said.items():
            assert answers[name] == values.get(engine, values.get("others")), (name, engine)
        assert f"`{name}`" in DOCUMENT.read_text()


def test_the_compiled_form_answers_all_but_what_it_is_known_to_leave():
    form = Accelerator.of(NAME, TemplateFolder(HERE, LYTEMPLATES).bundle(NAME))

    asked = zip(NAMES, profiles(), strict=True)
    left = {name for name, text in asked if form.answer(text, SETTINGS) is None}

    assert {name for name in left if not name.startswith("fails_")} == LEFT


def test_a_worker_says_what_go_jsonnet_says(said):
    renderer = Renderer(HERE, LYTEMPLATES)
    template = renderer.load(NAME)

    results = renderer.render(template, [Row(text, SETTINGS) for text in profiles()])

    ours = [told(one.body) if isinstance(one, Rendered) else FAILED for one in results]
    for name, value in zip(NAMES, ours, strict=True):
        engines = said if name in DIFFERENT else ("gojsonnet",)
        assert value in [said[engine][name] for engine in engines], name
