import orjson
import pytest

from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.ops.main import app
from segrelay.ops.terminal.console import mention, print_json, run_guarded, say, table
from segrelay.worker.contract.printable import printable
from segrelay.worker.errors import PortTaken, UsageWrong


def ended(capsys, what):
    with pytest.raises(SystemExit) as stop:
        run_guarded(what)
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def raising(error):
    def what():
        raise error

    return what


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageWrong("Not like this."), 2, "Not like this.\n"),
        (TemplateBroken("t.jsonnet:1:2: no.", "t.jsonnet", 1, 2), 2, "t.jsonnet:1:2: no.\n"),
        (PortTaken("Port 80 is taken."), 1, "Port 80 is taken.\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied\n"),
        (OSError("AF_UNIX path too long"), 1, "AF_UNIX path too long\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
        (SystemExit(3), 3, ""),
    ],
)
def test_each_error_has_its_code_and_one_paragraph(error, code, message, capsys):
    assert ended(capsys, raising(error)) == (code, "", message)


@pytest.mark.parametrize(
    ("what", "code", "told"),
    [
        (lambda: print_json({"a": 1}), 0, ""),
        (lambda: app(["config", "show", "--nope"]), 2, "No such option: --nope"),
        (lambda: app(["confg"]), 2, "Did you mean 'config'?"),
        # A bug is told by its place and without its text.
        (raising(KeyError("ann@example.com")), 1, "KeyError at "),
    ],
)
def test_what_is_run_ends_with_its_code(capsys, what, code, told):
    ended_with, out, err = ended(capsys, what)

    assert (ended_with, bool(out)) == (code, code == 0)
    assert told in err
    assert "ann@example.com" not in err
    assert "Traceback" not in err


def test_the_traceback_is_shown_on_demand(capsys, monkeypatch):
    monkeypatch.setenv("SEGRELAY_DEBUG", "1")

    _, _, err = ended(capsys, raising(UsageWrong("Not like this.")))

    assert "Traceback" in err
    assert err.endswith("Not like this.\n")


def test_a_table_is_aligned_text_where_no_terminal_is(capsys):
    table(("name", "n"), [("vip", 12), ("[bold]long", 3)])

    assert capsys.readouterr().out == "name        n\nvip         12\n[bold]long  3\n"


ATTACK = "vip\x1b[2J\x9b31m\r\u202e\u2028\x7f"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zoë, 東京, 🎉", "Zoë, 東京, 🎉"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egpj", "\\u202egpj"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_printed_as_its_escape(text, expected):
    assert printable(text) == expected


def test_an_escape_sequence_reaches_the_terminal_on_no_way(capsys):
    say(f"audience {ATTACK}")
    mention(f"audience {ATTACK}")
    table(("audience",), [(ATTACK + "\n",)])
    print_json({"audience": ATTACK})

    out, err = capsys.readouterr()

    assert {character for character in out + err if not character.isprintable()} == {"\n"}
    assert orjson.loads(out[out.index("{") :]) == {"audience": ATTACK}
    assert err.startswith("audience vip")
