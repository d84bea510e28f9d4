"""The engines side by side: what the worker renders, and what the judges say it should be."""

import json
from pathlib import Path

import orjson
import pytest

from worker.adapters.jsonnet_errors import Failure
from worker.adapters.jsonnet_judge import judge
from worker.adapters.renderer import Rendered, Renderer, Row
from worker.adapters.template_check import engines
from worker.adapters.template_files import SHIPPED_FOLDER, TemplateFolder

FAILED = "failed"


@pytest.fixture
def agreed():
    """Render profiles; every engine has to yield the same; a failure is "failed"."""

    def values(folder, name, profiles, settings=None):
        renderer = Renderer(folder)
        texts = [orjson.dumps(profile) for profile in profiles]
        rows = [Row(text) for text in texts]
        ours = [
            json.loads(result.body) if isinstance(result, Rendered) else FAILED
            for result in renderer.render(renderer.load(name), rows, settings or {})
        ]
        bundle = TemplateFolder(folder).bundle(name)
        for engine in engines():
            said = judge(engine, bundle, texts, orjson.dumps(settings or {}))
            theirs = [FAILED if isinstance(s, Failure) else json.loads(s) for s in said]
            assert theirs == ours, engine
        return ours

    return values


@pytest.fixture
def agreed_source(agreed, tmp_path):
    """The same for a source text."""

    def values(source, profiles, settings=None):
        (tmp_path / "t.jsonnet").write_text(source)
        return agreed(tmp_path, "t.jsonnet", profiles, settings)

    return values


@pytest.fixture
def shipped(agreed):
    """The user that a shipped template makes of each profile."""

    def users(name, profiles, settings=None):
        bodies = agreed(SHIPPED_FOLDER, f"insider/{name}.jsonnet", profiles, settings)
        assert all(len(body["users"]) == 1 and set(body) == {"users"} for body in bodies)
        return [body["users"][0] for body in bodies]

    return users


@pytest.fixture
def here():
    return Path(__file__).parent
