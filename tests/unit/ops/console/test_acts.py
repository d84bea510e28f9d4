"""The commands behind the buttons."""

from pathlib import Path

import pytest

from segrelay.ops.console.acts import ACTS, StartedCommands, act_in, act_named, command_line
from segrelay.ops.console.rights import Person
from segrelay.worker.errors import OperationsMustAct, UsageWrong
from tests.waiting import until

OPERATOR = Person("ann", frozenset({"viewer", "operator"}))


CAUSE = {"cause": ["3f2a91c0"]}


@pytest.mark.parametrize(
    ("act", "values", "agreed", "line"),
    [
        ("dlq replay", CAUSE | {"since": ["2h"]}, None, "--since=2h --cause=3f2a91c0"),
        ("dlq replay", CAUSE, 412, "--cause=3f2a91c0"),
        ("dlq discard", CAUSE, 412, "--at-most=412 --cause=3f2a91c0"),
        ("dlq discard", {}, None, "--all"),
        (
            "dlq replay",
            {"trigger": ["--all"], "ids": ["--yes", "a.1.b"]},
            None,
            "--trigger=--all -- --yes a.1.b",
        ),
        ("pause", {"name": ["$(rm x)"]}, None, "'$(rm x)'"),
    ],
)
def test_the_command_to_copy_is_the_one_that_runs(act, values, agreed, line):
    """A value is never taken for an option, and a number that was agreed on is in the command."""
    assert command_line(act_named(act), values, agreed) == f"segrelay {act} {line}"


def test_a_choice_that_an_act_does_not_know_is_refused_and_not_left_out():
    with pytest.raises(UsageWrong, match="knows no kind"):
        act_named("quarantine discard").values({"audience": ["vip"], "kind": ["no_trigger"]})


def test_no_form_has_a_field_for_a_persons_address():
    assert not [act for act in ACTS.values() if {"profile", "why"} & set(act.fields)]
    assert "job" in act_named("dlq discard").fields


@pytest.mark.parametrize(
    ("act", "reason", "lacks"), [("dlq discard", "of no use", "how many"), ("pause", " ", "reason")]
)
def test_an_act_needs_a_reason_and_one_that_can_not_be_undone_a_number(act, reason, lacks):
    with pytest.raises(UsageWrong, match=lacks):
        StartedCommands().start(OPERATOR, act_named(act), {}, reason=reason)


@pytest.mark.parametrize(
    ("command", "act", "values"),
    [
        ("segrelay resume insider", "resume", {"name": "insider"}),
        ("segrelay backfill resume november", "backfill resume", {"job": "november"}),
        ("segrelay sync confirm vip", "sync confirm", {"sync": "vip"}),
        ("segrelay redis acknowledge", "redis acknowledge", {}),
        ("segrelay backfill start …; segrelay redis acknowledge", None, {}),
        ("segrelay resume", None, {}),
        ("segrelay resume --all", None, {}),
    ],
)
def test_a_problems_command_becomes_a_button_if_it_is_an_act(command, act, values):
    assert act_in(command) == (act and (ACTS[act], values))


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("person", [Person(), Person("vic")])
def test_nobody_but_an_operator_starts_a_command(name, person):
    with pytest.raises(UsageWrong, match="operator"):
        StartedCommands().start(person, ACTS[name], {}, reason="because")


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
    commands.start(viewer, replay, {}, is_dry_run=True)
    with pytest.raises(OperationsMustAct, match="Your dry run is under way: `segrelay dlq replay"):
        commands.start(viewer, replay, {}, is_dry_run=True)
    for name in ("val", "vera", "vito"):
        commands.start(Person(name), replay, {}, is_dry_run=True)
    with pytest.raises(OperationsMustAct, match="Several"):
        commands.start(Person("vlad"), replay, {}, is_dry_run=True)

    commands.start(OPERATOR, act_named("pause"), {"name": ["insider"]}, reason="at once")
    commands.end()
