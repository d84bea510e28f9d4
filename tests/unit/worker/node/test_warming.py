"""A warm-up drains samples by all that a drain is, and leaves nothing behind."""

import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from segrelay.jsonnet.rendered import Row, TemplateFailed
from segrelay.templates import SHIPPED_FOLDER
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.node.loading import Loaded, load
from segrelay.worker.node.warming import WarmUp
from tests.configuration import configuration, credentials, endpoint, insider, trigger
from tests.unit.jsonnet.test_accelerator import DIFFERS

LONG = 60.0
"""The seconds of a warm-up on a busy machine."""
ENTER = "{ users: [{ identifiers: { email: 'ann@example.com' } }] }"


@pytest.fixture
def listener():
    """A server to which nobody may connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def loaded(tmp_path):
    """Return a function that loads a configuration with these tables and templates."""

    def load_with(*tables: str, **templates: str):
        folder = tmp_path / "templates"
        folder.mkdir()
        for name, text in templates.items():
            (folder / f"{name}.jsonnet").write_text(text)
        path = tmp_path / "segrelay.toml"
        path.write_text(configuration(*tables))
        settings = load_settings(path, environ={})
        return settings, load(settings)

    return load_with


def warm_up_of(settings, loaded: Loaded) -> WarmUp:
    return WarmUp.of(settings, loaded.renderer, loaded.triggers)


def names_of(warm_up: WarmUp) -> list[str]:
    return [sample.trigger.name for sample in warm_up.samples]


def shipped(name: str) -> str:
    return Path(SHIPPED_FOLDER, "insider", f"{name}.jsonnet").read_text("utf-8")


def test_a_sample_of_each_template_is_drained_until_its_request_has_an_answer(loaded, listener):
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings, found = loaded(
        credentials(),
        insider(base_url=url, authorization="insider"),
        endpoint("here", base_url=url),
        trigger("enter", template="enter.jsonnet"),
        trigger("other", audiences=["other"], template="enter.jsonnet"),
        trigger("page", destination="here", template="page.jsonnet", url="/page"),
        enter=shipped("enter"),
        page="{ a: 1 }",
    )

    warm_up = warm_up_of(settings, found)

    assert names_of(warm_up) == ["enter", "page"]
    with capture_logs() as logs:
        assert warm_up.run(most_seconds=LONG) == 2
        assert warm_up.run(most_seconds=LONG) == 2, "each process does it again"
    assert logs == []
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_url_that_a_template_makes_is_drained_too(loaded):
    settings, found = loaded(
        endpoint("here"),
        trigger(
            "page",
            destination="here",
            template="page.jsonnet",
            url={"template": "url.jsonnet"},
        ),
        page="{ a: 1 }",
        url="'/page/1'",
    )

    assert warm_up_of(settings, found).run(most_seconds=LONG) == 1


def test_it_decides_nothing_about_a_template_and_counts_nowhere(loaded):
    settings, found = loaded(
        endpoint("here"),
        trigger("page", destination="here", template="page.jsonnet", url="/page"),
        page=DIFFERS,
    )
    renderer, page = found.renderer, found.triggers["here"]["page"]
    before = renderer.doubted

    warm_up_of(settings, found).run(most_seconds=LONG)

    assert renderer.doubted == before == {}
    assert renderer.engine_use == {}
    [first] = renderer.render(page.template, [Row(b'{"n": 1}', page.settings)])
    assert isinstance(first, TemplateFailed), "the first event is compared with the engine"


def test_triggers_that_are_stopped_or_fail_for_their_sample_are_left_out(loaded):
    settings, found = loaded(
        insider(),
        trigger("broken", template="broken.jsonnet"),
        trigger("fails", audiences=["a"], template="fails.jsonnet"),
        trigger("works", audiences=["b"], template="works.jsonnet"),
        broken="{ users: [",
        fails="error 'always'",
        works=ENTER,
    )

    assert names_of(warm_up_of(settings, found)) == ["works"]


def test_without_any_sample_it_does_nothing(loaded):
    settings, found = loaded(insider(), trigger("broken", template="broken.jsonnet"), broken="{")

    assert warm_up_of(settings, found).run(most_seconds=LONG) == 0


def test_a_sample_that_has_gone_away_is_logged_and_left_out(loaded, tmp_path):
    sample = tmp_path / "sample.json"
    sample.write_text((SHIPPED_FOLDER / "samples" / "enter.json").read_text("utf-8"))
    settings, found = loaded(
        insider(),
        trigger("enter", template="enter.jsonnet", sample="sample.json"),
        enter=ENTER,
    )
    sample.unlink()

    with capture_logs() as logs:
        assert names_of(warm_up_of(settings, found)) == []

    assert [line["event"] for line in logs] == ["warming.failed"]
