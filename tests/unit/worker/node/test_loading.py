"""What a node loads before its processes are forked: each kind of trigger is tried once."""

import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from segrelay.worker.checks.triggers import check_triggers
from segrelay.worker.contract.settings import Settings, load_settings
from segrelay.worker.node.loading import answer_apart, load
from tests.configuration import configuration, insider, trigger

ENTER = '{ users: [{ identifiers: { email: "ann@example.com" } }] }'
BROKEN = "{ users: [ "


def settings_with(folder: Path, triggers: Sequence[tuple[str, str]], **templates: str) -> Settings:
    """Return a configuration of triggers, each with the name of its template."""
    (folder / "templates").mkdir()
    for name, text in templates.items():
        (folder / "templates" / f"{name}.jsonnet").write_text(text)
    tables = [
        trigger(name, audiences=[name], template=f"{template}.jsonnet")
        for name, template in triggers
    ]
    path = folder / "segrelay.toml"
    path.write_text(configuration(insider(), *tables))
    return load_settings(path, environ={})


def test_what_ends_the_process_that_is_asked_is_not_answered_and_all_else_is() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fail() -> None:
        raise MemoryError

    answers = [answer_apart(ask) for ask in (lambda: 1, die, fail, lambda: "three")]

    assert answers == [1, None, None, "three"]


def test_what_does_not_come_to_an_end_is_not_answered() -> None:
    def spin() -> None:
        while True:
            pass

    assert answer_apart(spin, seconds=0.2) is None


def test_triggers_that_differ_in_name_and_audiences_only_are_tried_once(tmp_path) -> None:
    settings = settings_with(
        tmp_path, [(f"trigger-{number}", "enter") for number in range(50)], enter=ENTER
    )
    asked = []

    def ask(question):
        asked.append(question)
        return answer_apart(question)

    loaded = load(settings, ask)

    assert len(asked) == 1
    assert len(loaded.triggers["insider"]) == 50
    assert loaded.stopped == {}


def test_a_template_that_ends_whoever_renders_it_stops_its_own_triggers_only(tmp_path) -> None:
    settings = settings_with(
        tmp_path, [("good", "enter"), ("bad", "deadly"), ("worse", "deadly")],
        enter=ENTER, deadly=ENTER + " + {}",
    )  # fmt: skip

    answers = [("", {}), None]

    assert set(load(settings, lambda _: answers.pop(0)).stopped) == {"bad", "worse"}


def test_a_template_that_does_not_parse_stops_its_own_triggers_only(tmp_path) -> None:
    settings = settings_with(
        tmp_path, [("good", "enter"), ("bad", "broken")], enter=ENTER, broken=BROKEN
    )

    loaded = load(settings)

    assert set(loaded.stopped) == {"bad"}
    assert "broken.jsonnet:1" in loaded.triggers["insider"]["bad"].stopped


def test_a_compiled_form_that_differed_in_the_trial_is_off_in_every_process(tmp_path) -> None:
    settings = settings_with(tmp_path, [("good", "enter")], enter=ENTER)

    loaded = load(settings, lambda _: ("", {"enter.jsonnet": 1}))

    assert loaded.renderer.doubted == {"enter.jsonnet": 1}


@pytest.mark.parametrize("template", ["enter", "broken"])
def test_the_check_tells_of_each_trigger_of_a_kind(tmp_path, template) -> None:
    names = [f"trigger-{number}" for number in range(5)]
    url_less = "{}" if template == "enter" else BROKEN
    settings = settings_with(tmp_path, [(name, "bad") for name in names], bad=url_less)

    findings = check_triggers(settings, datetime.now(UTC))

    errors = [finding.trigger for finding in findings if finding.severity == "error"]
    assert sorted(set(errors)) == names
