"""The engines side by side: what the worker renders, and what the judges say it should be."""

import json
from pathlib import Path

import orjson
import pytest

from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import judge, judges
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Rendered, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES, SHIPPED_FOLDER
from segrelay.worker.checks.preview import sample_header
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import NotSendable, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.nightly import NIGHTLY
from tests.waiting import allowed

FAILED = "failed"
NOW_US = 1_793_800_000_000_000
ENGINES = ("rjsonnet", *(judges() if NIGHTLY else [one for one in judges() if one != "jsonnet"]))
"""The reference takes ten times as long as the others; by day it judges the shipped templates, the
snippets that show where engines differ, and a share of the others.
"""


@pytest.fixture
def agreed():
    """Render profiles; every engine has to yield the same; a failure is "failed"."""

    def values(folder, name, profiles, settings=None):
        renderer = Renderer(folder, LYTEMPLATES)
        texts = [orjson.dumps(profile) for profile in profiles]
        rows = [Row(text, settings or {}) for text in texts]
        ours = [
            json.loads(result.body) if isinstance(result, Rendered) else FAILED
            for result in renderer.render(renderer.load(name), rows)
        ]
        bundle = TemplateFolder(folder, LYTEMPLATES).bundle(name)
        for engine in ENGINES:
            seconds = allowed(20)
            said = judge(engine, bundle, texts, orjson.dumps(settings or {}), seconds=seconds)
            told = f"{engine} died, or did not judge {len(texts)} profiles in {seconds:.0f} s"
            assert None not in said, f"{told}: event {said.index(None)} has no answer"
            theirs = [FAILED if isinstance(s, Failure) else json.loads(s) for s in said]
            assert theirs == ours, engine
        return ours

    return values


@pytest.fixture
def rendered(tmp_path):
    """Render a source text for each row, as a worker does."""

    def results(source, rows, **options):
        (tmp_path / "t.jsonnet").write_text(source)
        renderer = Renderer(tmp_path, LYTEMPLATES, **options)
        return renderer.render(renderer.load("t.jsonnet"), rows)

    return results


@pytest.fixture
def agreed_source(agreed, tmp_path):
    """The same for a source text."""

    def values(source, profiles, settings=None):
        (tmp_path / "t.jsonnet").write_text(source)
        return agreed(tmp_path, "t.jsonnet", profiles, settings)

    return values


@pytest.fixture
def shipped(agreed):
    """The user that is sent for each profile: a shipped template, then Insider's shape."""

    def users(name, profiles, settings=None):
        bodies = agreed(SHIPPED_FOLDER, f"insider/{name}.jsonnet", profiles, settings)
        assert all(len(body["users"]) == 1 and set(body) == {"users"} for body in bodies)
        events = [profile["segment_events"][0]["event"] for profile in profiles]
        return [_sent(name, body, event) for body, event in zip(bodies, events, strict=True)]

    return users


def _sent(name, body, event):
    shaped = InsiderApi().shape(body, *event_of(name, event), NOW_US)
    return None if isinstance(shaped, NotSendable) else shaped.users[0]


def event_of(name, event, audience="vip"):
    """Return the event for which a template of that name is rendered, and its trigger's rules."""
    path = "attribute/delete" if name == "exit" else "upsert"
    url = f"https://unification.useinsider.com/api/user/v1/{path}"
    rules = ShapingRules(url, "lytics_computed_attr", "US")
    return sample_header(audience, Direction(event), NOW_US), rules


@pytest.fixture
def here():
    return Path(__file__).parent
