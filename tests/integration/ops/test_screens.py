"""Every command that prints a table, on screens of 80 and 120 columns: nothing is cut."""

import io
import re
from contextlib import redirect_stderr, redirect_stdout, suppress

import orjson
import pytest

from segrelay.ops.main import COMPLETED, app
from tests.configuration import trigger
from tests.integration.ops.relay import LYTICS, payload

ENTER = trigger(
    "very-important-people-of-the-north-enter", audiences=["*"], template="enter.jsonnet"
)
AUDIENCE = "very_important_people_of_the_north"
COMMANDS = {
    "status": ("status",),
    "dlq list": ("dlq", "list"),
    "dlq causes": ("dlq", "causes"),
    "dlq dry run": ("dlq", "replay", "--all", "--dry-run"),
    "why": ("why", "ann@example.com"),
    "quarantine list": ("quarantine", "list"),
    "audience list": ("audience", "list"),
    "backfill status": ("backfill", "status"),
    "sync status": ("sync", "status"),
    "template list": ("template", "list"),
    "verify": ("verify", "--older-than", "0s", "--again-after", "0s"),
}


WIDTHS = (80, 120)
SAYS_NOTHING = {"", "-", "0"}
TITLES = {
    *("accepted", "delivered", "skipped", "dead", "discarded", "waiting", "entered", "left"),
    *("reason", "status", "without answer", "event", "id", "triggers", "syncs", "last event"),
    *("used by", "detail", "message", "audience", "direction", "destination", "trigger"),
}
"""A column that says nothing is left out."""


class Screen(io.StringIO):
    """What a terminal shows."""

    def isatty(self):
        return True


@pytest.fixture
def busy(relay, sandbox, tmp_path):
    """A bit of everything, with long names."""
    relay.configure(LYTICS.format(url=sandbox.url), triggers=ENTER)
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(
        payload("ann@example.com", audience=AUDIENCE),
        payload("ben@example.com", audience=AUDIENCE, status="poisoned"),
        payload("eva@example.com", audience=AUDIENCE, direction="exit"),
    )
    relay.template("enter.jsonnet", "error 'no such field, ' + std.repeat('and so on ', 20)")
    relay.deliver(payload("ann@example.com", audience=AUDIENCE, minute=5))
    relay.template("enter.jsonnet", relay.shipped("enter.jsonnet"))
    sandbox.settings(poison="", poison_status=400)
    file = tmp_path / "people.ndjson"
    file.write_bytes(orjson.dumps({"email": "kim@example.com"}) + b"\n")
    return relay, file


@pytest.fixture
def shown(busy, monkeypatch):
    """Return what a command shows on a screen, or where there is none."""
    relay, file = busy
    monkeypatch.setenv("SEGRELAY_CONFIG", str(relay.settings.source))
    monkeypatch.setenv("NO_COLOR", "1")

    def run(arguments, width=None):
        out = Screen() if width else io.StringIO()
        monkeypatch.setenv("COLUMNS", str(width or 80))
        with redirect_stdout(out), redirect_stderr(io.StringIO()), suppress(SystemExit):
            app(list(arguments), standalone_mode=False)
        return out.getvalue()

    run(("backfill", "start", str(file), "--audience", AUDIENCE, "--as-of", "now", "--job",
         "the-november-import-of-the-north"))  # fmt: skip
    relay.publish(payload("ann@example.com", audience=AUDIENCE, minute=9))
    return run


def test_on_a_screen_each_command_shows_what_it_prints_elsewhere(shown, sandbox):
    sandbox.reset()  # so that `verify` finds something
    kim = {"_uid": "u1", "email": "kim@example.com", "segments": [AUDIENCE]}
    sandbox.post("lytics/profiles", [kim])
    for name, command in COMMANDS.items():
        elsewhere = shown(command)
        lines = [line for line in elsewhere.splitlines() if "oldest waits" not in line]
        cells = {cell for line in lines for cell in re.split(r"\s{2,}", line)}
        assert len(cells) > 3, name

        for width in WIDTHS:
            screen = shown(command, width)

            flat = " ".join(screen.split())
            for cell in cells - SAYS_NOTHING - TITLES:
                assert cell in flat, (name, width, cell)
            for line in screen.splitlines():
                assert len(line) <= width or len(line.split()) <= 2, (name, line)


def test_the_shell_completes_names(busy, monkeypatch):
    relay, _ = busy
    monkeypatch.setenv("SEGRELAY_CONFIG", str(relay.settings.source))

    assert COMPLETED["trigger"]("very") == ["very-important-people-of-the-north-enter"]
    assert COMPLETED["trigger"]("other") == []
    assert COMPLETED["destination"]("") == ["insider"]
    assert COMPLETED["sync name"]("v") == ["vip"]
    assert COMPLETED["template"]("en") == ["enter.jsonnet"]
    assert COMPLETED["pause names"]("") == ["insider", "very-important-people-of-the-north-enter"]
    assert COMPLETED["audience"]("vip") == ["vip"]


def test_what_can_not_be_read_completes_nothing_and_says_nothing(tmp_path, monkeypatch, capfd):
    (tmp_path / "segrelay.toml").write_text("[redis\n")
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))

    assert [complete("v") for complete in COMPLETED.values()] == [[]] * len(COMPLETED)
    assert capfd.readouterr() == ("", "")
