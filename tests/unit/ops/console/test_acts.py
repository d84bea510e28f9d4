"""The commands behind the buttons."""

from pathlib import Path

import pytest

from segrelay.ops.console.acts import ACTS, StartedCommands, act_in, act_named, command_line
from segrelay.ops.console.rights import Person
from segrelay.worker.errors import OperationsMustAct, UsageWrong
from tests.waiting import until

OPERATOR = Person("ann", frozenset({"viewer", "operator"}))


def test_the_command_to_copy_is_the_one_that_runs():
    values = {"cause": ["3f2a91c0"], "since": ["2h"]}

    assert (
        command_line(act_named("dlq replay"), values)
        == "segrelay dlq replay --since=2h --cause=3f2a91c0"
    )


def test_a_number_that_was_agreed_on_is_in_the_command():
    values = {"cause": ["3f2a91c0"]}

    told = command_line(act_named("dlq discard"), values, 412)

    assert told == "segrelay dlq discard --at-most=412 --cause=3f2a91c0"
    assert "--at-most" not in command_line(act_named("dlq replay"), values, 412)


def test_an_act_that_can_not_be_undone_needs_a_number():
    with pytest.raises(UsageWrong, match="how many"):
        StartedCommands().start(OPERATOR, act_named("dlq discard"), {}, reason="of no use")


def test_without_a_filter_the_command_says_all():
    assert command_line(act_named("dlq discard"), {}) == "segrelay dlq discard --all"


def test_a_value_is_never_taken_for_an_option():
    told = command_line(act_named("dlq replay"), {"trigger": ["--all"], "ids": ["--yes", "a.1.b"]})

    assert told == "segrelay dlq replay --trigger=--all -- --yes a.1.b"
    assert "'$(rm x)'" in command_line(act_named("pause"), {"name": ["$(rm x)"]})


@pytest.mark.parametrize(
    ("command", "act", "values"),
    [
        ("segrelay resume insider", "resume", {"name": "insider"}),
        ("segrelay backfill resume november", "backfill resume", {"job": "november"}),
        ("segrelay sync confirm vip", "sync confirm", {"sync": "vip"}),
        ("segrelay redis acknowledge", "redis acknowledge", {}),
    ],
)
def test_a_problems_command_becomes_a_button(command, act, values):
    assert act_in(command) == (ACTS[act], values)


@pytest.mark.parametrize(
    "command",
    [
        "segrelay backfill start …; segrelay redis acknowledge",
        "segrelay resume",
        "segrelay resume --all",
        "restart these workers",
    ],
)
def test_what_is_no_act_becomes_no_button(command):
    assert act_in(command) is None


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("person", [Person(), Person("vic")])
def test_nobody_but_an_operator_starts_a_command(name, person):
    with pytest.raises(UsageWrong, match="operator"):
        StartedCommands().start(person, ACTS[name], {}, reason="because")


def test_an_act_needs_a_reason():
    with pytest.raises(UsageWrong, match="reason"):
        StartedCommands().start(OPERATOR, act_named("pause"), {"name": ["insider"]}, reason=" ")


def test_other_users_of_the_machine_do_not_see_whom_a_command_is_about(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = {"text": ["ann@example.com"]}
    started = StartedCommands().start(
        OPERATOR, act_named("dlq discard"), chosen, reason="as ann asked", at_most=1
    )
    assert started.process

    shown = Path(f"/proc/{started.process.pid}/cmdline")
    line = until(shown.read_bytes)  # empty for a moment while the program is loaded

    assert b"segrelay.ops.entry" in line
    assert b"ann@" not in line
    until(lambda: started.is_over, 60)
    assert started.code == 2
    assert "segrelay.toml" in " ".join(started.lines)


def test_dry_runs_of_viewers_stop_no_act(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands, viewer = StartedCommands(), Person("vic")
    replay = act_named("dlq replay")
    for _ in range(4):
        commands.start(viewer, replay, {}, is_dry_run=True)
    with pytest.raises(OperationsMustAct, match="under way"):
        commands.start(viewer, replay, {}, is_dry_run=True)

    commands.start(OPERATOR, act_named("pause"), {"name": ["insider"]}, reason="at once")
    commands.end()
