"""How messages are written."""

from dataclasses import replace

import pytest

from segrelay.ops.status.alerts import OpenProblem, body_of
from segrelay.ops.status.problems import ILL, HealthProblem
from segrelay.worker.contract.settings.sections import NotifySettings
from segrelay.worker.contract.settings.values import Secret

PROBLEM = HealthProblem(
    "trigger_paused",
    ILL,
    "vip",
    "everything dies of <one> cause & more",
    "segrelay resume vip",
    1_793_527_200_000,
)
BEGIN = ("problem", OpenProblem(PROBLEM, since_ms=1_000, seen_ms=61_000))
END = ("problem_over", OpenProblem(PROBLEM, since_ms=1_000, seen_ms=601_000))


def settings(**keys):
    return NotifySettings(url=Secret("literal", "https://chat.example.com/hook"), **keys)


def test_slack_gets_one_text_whose_signs_are_escaped():
    body = body_of(*BEGIN, settings(format="slack", name="production"))

    assert body == {
        "text": "*segrelay (production): ill: trigger_paused vip*\n"
        "everything dies of &lt;one&gt; cause &amp; more.\nDo: segrelay resume vip"
    }


def test_teams_gets_an_adaptive_card():
    (attachment,) = body_of(*BEGIN, settings(format="teams"))["attachments"]

    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    texts = [block["text"] for block in attachment["content"]["body"]]
    assert texts[0] == "segrelay: ill: trigger_paused vip"
    assert texts[-1] == "Do: segrelay resume vip"


def test_a_program_gets_the_problem_as_status_has_it():
    body = body_of(*BEGIN, settings(name="production"))

    assert body["event"] == "problem"
    assert body["problem"] == PROBLEM.document()
    assert body["installation"] == "production"


LASTS = ("problem_lasts", OpenProblem(PROBLEM, 61_000, 3_661_000))
ASKED = ("problem", OpenProblem(replace(PROBLEM, message="Was it changed?"), 1, 1))


@pytest.mark.parametrize(
    ("alert", "told"),
    [
        (END, "over: trigger_paused vip\nIt lasted 10 minutes. It was: everything dies"),
        (LASTS, "segrelay: still ill: trigger_paused vip\nIt has lasted 60 min"),
        # A question ends with its own mark.
        (ASKED, "\nWas it changed?\n"),
    ],
)
def test_a_text_says_how_long_it_lasted_and_what_it_was(alert, told):
    body = body_of(*alert, settings())

    assert body["event"] == alert[0]
    assert told in body["text"]


@pytest.mark.parametrize("kind", ["slack", "teams", "json"])
def test_what_a_terminal_would_obey_is_written_as_its_escape(kind):
    alert = OpenProblem(replace(PROBLEM, message="red \x1b[31m"), 1, 1)

    assert "\x1b" not in str(body_of("problem", alert, settings(format=kind)).get("text", ""))


@pytest.mark.parametrize("kind", ["slack", "teams", "json"])
def test_a_message_links_to_its_entry_where_the_documentation_has_an_address(kind):
    link = "https://docs.example.com/operating.md#trigger_paused"
    documentation = "https://docs.example.com/operating.md"

    assert link in str(body_of(*BEGIN, settings(format=kind), documentation))
    assert link not in str(body_of(*END, settings(format=kind), documentation))
    assert "#trigger_paused" not in str(body_of(*BEGIN, settings(format=kind)))
