"""What all commands have in common."""

import re

import pytest
from typer.testing import CliRunner

from segrelay.ops.entry import written_help
from segrelay.ops.main import COMMANDS, app
from segrelay.ops.terminal.frame import load


def run(*arguments, env=None):
    return CliRunner().invoke(app, arguments, env=env)


def commands():
    for name, lazy in COMMANDS.items():
        yield from lines(load(name, lazy), name)


def lines(command, *words):
    inner = getattr(command, "commands", None)
    if not inner:
        yield list(words)
    for name, sub in (inner or {}).items():
        yield from lines(sub, *words, name)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_takes_a_configuration_behind_its_name_and_has_help(command):
    told = run(*command, "--help")

    assert told.exit_code == 0
    assert told.stdout.split() == written_help([*command, "-h"]).split(), "Run `make docs`."
    assert "--config FILE" in told.stdout
    assert "--real " in told.stdout
    usage, first = told.stdout.split("\n\n")[:2]
    assert first.strip()[0].isupper()
    assert not {"{", "[["} & {usage[at : at + n] for at in range(len(usage)) for n in (1, 2)}


def test_the_help_of_the_whole_program_fits_one_screen():
    lines = run("--help").stdout.splitlines()

    assert len(lines) <= 23  # the prompt comes below
    assert max(map(len, lines)) <= 80


def test_the_help_of_a_group_has_examples_and_cuts_no_sentence():
    for name in COMMANDS:
        told = written_help([name, "-h"])
        assert "..." not in told.partition("Commands:")[2]
        assert all(f"\n    {example}\n" in f"{told}\n" for example in COMMANDS[name].examples)


def test_a_reason_a_job_and_a_destination_are_named_by_one_option_everywhere():
    helps = {words: written_help([*words, "-h"]) for words in map(tuple, commands())}

    assert not [
        name for name, text in helps.items() if re.search("--(because|kind|name|to) ", text)
    ]
    for option, value in (("--reason", "REASON"), ("--why", "TEXT")):
        shown = re.compile(rf"(?m)^ +{option} (\S+)")
        assert {found for text in helps.values() for found in shown.findall(text)} == {value}


def test_the_version_is_told_in_short():
    assert run("-V").stdout == run("--version").stdout
    assert run("-V").stdout.startswith("segrelay ")


def test_a_shell_completes_commands_and_their_options():
    def completed(words):
        index = str(len(words.split()) - 1)
        line = {"COMP_WORDS": words, "COMP_CWORD": index, "_SEGRELAY_COMPLETE": "complete_bash"}
        return CliRunner().invoke(app, env=line, prog_name="segrelay").stdout.split()

    assert completed("segrelay dlq re") == ["replay"]
    assert completed("segrelay quarantine discard --si") == ["--since"]


def test_one_word_means_one_thing_in_all_commands():
    """What is thrown away is discarded, what is tried again is replayed, what lists is `list`."""
    words = {command[-1] for command in commands()}

    assert not words & {"drop", "delete", "remove", "purge", "retry", "resend", "ls"}


def test_whoever_looks_for_a_command_that_there_is_not_reads_what_to_do_instead():
    told = run("reconcile", "vip")

    assert told.exit_code == 2
    assert "No such command 'reconcile'" in told.output
    assert "segrelay sync run NAME --dry-run" in told.output
