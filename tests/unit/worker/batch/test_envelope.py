"""The whole body of a request, made by a template of its array of results."""

import asyncio
from types import SimpleNamespace

import orjson
import pytest

from segrelay.jsonnet.rendered import Rendered
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.batch.batch import Request
from segrelay.worker.batch.pack import put_in_envelope

WHOLE = """
local event = import "lytemplates.libsonnet";
local results = event.get("results");
assert std.length(results) < 3 : "too many";
{ ids: [each.id for each in results], from: event.jobConfGet("from") }
"""


class Renders:
    """Renders in this process; what is not safe is counted."""

    def __init__(self, renderer, *, is_safe):
        self.renderer = renderer
        self.is_safe = is_safe
        self.isolated = 0

    def render_safely(self, template, engine, row):
        [found] = self.renderer.render(template, [row], engine)
        return found if self.is_safe and isinstance(found, Rendered) else None

    async def render(self, template, engine, rows, *, isolated):
        self.isolated += isolated
        return self.renderer.render(template, rows, engine)


def request_of(trigger, body):
    return Request(((SimpleNamespace(loaded=trigger),),), "", body, 1, ("vip",))


def made_of(tmp_path, text, body, *, is_safe=True):
    (tmp_path / "whole.jsonnet").write_text(text)
    renderer = Renderer(tmp_path, LYTEMPLATES)
    template = renderer.load("whole.jsonnet")
    trigger = SimpleNamespace(envelope=template, engine="auto", settings={"from": "us"})
    request = request_of(trigger, body)
    renders = Renders(renderer, is_safe=is_safe)
    problem = asyncio.run(put_in_envelope(request, renders))
    return problem or request, renders


@pytest.mark.parametrize("is_safe", [True, False])
def test_a_template_makes_the_body_of_the_array(tmp_path, is_safe):
    made, renders = made_of(tmp_path, WHOLE, b'[{"id":1},{"id":2}]', is_safe=is_safe)

    assert orjson.loads(made.body) == {"ids": [1, 2], "from": "us"}
    assert renders.isolated == (not is_safe)


def test_a_template_that_fails_says_why_there_is_no_body(tmp_path):
    too_many, _ = made_of(tmp_path, WHOLE, b'[{"id":1},{"id":2},{"id":3}]')
    missing, _ = made_of(tmp_path, WHOLE, b'[{"name":1}]')
    text, _ = made_of(tmp_path, '"text"', b"[]")

    assert too_many == "whole.jsonnet: too many"
    assert missing.startswith("whole.jsonnet: ")
    assert text == "whole.jsonnet yields neither an object nor an array."


def test_without_a_template_a_request_stays_as_it_is():
    trigger = SimpleNamespace(envelope=None)
    request = request_of(trigger, b"[]")

    assert asyncio.run(put_in_envelope(request, None)) == ""
    assert request.body == b"[]"
