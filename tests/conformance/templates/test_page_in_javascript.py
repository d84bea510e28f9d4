"""The page's pair in JavaScript beside its pair in Jsonnet: both render the same."""

from random import Random

import orjson
import pytest

from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Rendered, Row, TemplateFailed
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import render_apart
from tests.nightly import amount
from tools.fuzz.__main__ import person

PEOPLE = amount(100, nightly=400)
WRONG = ["", None, 0, False, "0", [], {}, [""], "t", -1, 1.5, "ann@", "é😀", 10**15, {"a": [1]}]
MISSING = ("segment_events", "id")
"""Jsonnet fails where the page's templates in JavaScript leave out what the event does not have."""


def fields_of(text):
    return [part.split('"')[0] for part in text.split('event.get("')[1:]]


def people(random, direction, fields):
    for number in range(PEOPLE):
        known = {name: f"{name} {number}" for name in fields if random.random() < 0.7}
        wrong = {name: random.choice(WRONG) for name in fields if random.random() < 0.2}
        entry = {"id": f"{number:032x}", "slug": "vip", "event": direction}
        entry[direction] = f"2026-11-01T10:00:00.{number:09d}Z"
        segment_events = {"segment_events": [entry]}
        yield {**person(random), **known, **wrong, **segment_events}


def bodies(folder, name, rows):
    renderer = Renderer(folder, LYTEMPLATES)
    here = values(renderer.render(renderer.load(name), rows))
    assert here == values(render_apart(TemplateFolder(folder, LYTEMPLATES).bundle(name), rows))
    return here


def values(results):
    """Return bodies as values: which engine rendered one shows in its spaces."""
    return [orjson.loads(each.body) if isinstance(each, Rendered) else each for each in results]


@pytest.fixture
def pair(here, tmp_path):
    """A folder with both pairs; the page's exit in Jsonnet is damaged and has to be mended."""
    for name in ("entrance", "exit"):
        text = (here / f"page_{name}.jsonnet").read_text()
        if name == "exit":
            text = text.replace("\\[", "[").replace("\\_", "_")
            text = text.replace("]\n]\n}", "]\n}")
        (tmp_path / f"{name}.jsonnet").write_text(text)
        (tmp_path / f"{name}.js").write_text((here / f"page_{name}.js").read_text())
    return tmp_path


def test_a_missing_field_is_written_as_the_documents_quote_the_page(here):
    document = (here.parents[2] / "docs/templates.md").read_text()
    text = (here / "page_entrance.js").read_text()

    assert 'data.age || ""' in document
    assert '"age": data.age || "",' in text
    assert "??" not in text


@pytest.mark.parametrize(("name", "direction"), [("entrance", "enter"), ("exit", "exit")])
def test_both_languages_render_the_same_for_the_same_people(pair, name, direction):
    fields = fields_of((pair / f"{name}.jsonnet").read_text())
    profiles = list(people(Random(11), direction, [f for f in fields if f not in MISSING]))
    rows = [Row(orjson.dumps(each)) for each in profiles]

    jsonnet = bodies(pair, f"{name}.jsonnet", rows)
    javascript = bodies(pair, f"{name}.js", rows)

    asked = [{f for f in fields if f in each} for each in profiles]
    plain = [
        at
        for at, each in enumerate(profiles)
        if all(each[f] or isinstance(each[f], (list, dict)) for f in asked[at])
    ]
    assert len(plain) > PEOPLE / 20
    assert [javascript[at] for at in plain] == [jsonnet[at] for at in plain]
    # `data.x || ""` takes 0, false and null for missing, and `event.get("x", "")` does not.
    assert [falsy_alike(each) for each in javascript] == [falsy_alike(each) for each in jsonnet]


def falsy_alike(value):
    """Return a body in which 0, false, null, "" and the default `[""]` are all the same."""
    if isinstance(value, dict):
        return {key: falsy_alike(each) for key, each in value.items()}
    if value == [""]:
        return ""
    if isinstance(value, list):
        return [falsy_alike(each) for each in value]
    return value or ""


def test_an_event_without_an_id_renders_in_javascript_and_fails_in_jsonnet(pair):
    row = Row(b'{"email": "a@example.com", "segment_events": [{"slug": "vip", "event": "enter"}]}')

    [jsonnet] = bodies(pair, "entrance.jsonnet", [row])
    [javascript] = bodies(pair, "entrance.js", [row])

    assert isinstance(jsonnet, TemplateFailed)
    assert javascript["users"][0]["events"][0]["event_params"]["custom"] == {
        "audience": "vip",
        "trigger": "enter",
        "origin": "Lytics",
    }
