"""The log of a worker."""

import io
import json
import logging
from contextlib import redirect_stderr

import pytest
import structlog

from segrelay.worker import logs


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "file"])
def written(request):
    """What is logged while a test runs, by this process' only loggers."""
    output = request.param()
    with redirect_stderr(output):
        logs.configure(logging.INFO)
        yield output


def test_no_value_reaches_a_terminal_as_an_order(written):
    structlog.get_logger().info("request.answered", audience="vip\x1b]0;title\x07\x9b2J")
    logging.getLogger("celery").warning("received \x1b[2J")

    assert "request.answered" in written.getvalue()
    assert not {"\x1b]", "\x07", "\x9b", "\x1b[2J"} & set_of_pieces(written.getvalue())


def set_of_pieces(text):
    return {text[at : at + length] for at in range(len(text)) for length in (1, 2, 4)}


@pytest.mark.parametrize(
    ("kind", "chosen", "is_json"),
    [
        pytest.param(Terminal, "", False, id="terminal"),
        pytest.param(io.StringIO, "", True, id="file"),
        pytest.param(Terminal, "json", True, id="json in a terminal"),
        pytest.param(io.StringIO, "text", False, id="text in a file"),
    ],
)
def test_the_form_of_the_log_is_chosen_for_all_lines(kind, chosen, is_json, monkeypatch):
    monkeypatch.setenv("SEGRELAY_LOG_FORMAT", chosen)
    with redirect_stderr(kind()) as output:
        logs.configure(logging.INFO)
        structlog.get_logger().info("drain.ended", delivered=1)
        logging.getLogger("celery").warning("received")
        logs.log_often("webhook.answered", [{"status": 200}])

    written = output.getvalue()
    assert len(written.splitlines()) == 3
    assert ("\x1b[" in written) == (kind is Terminal and not is_json)
    if is_json:
        lines = [json.loads(line) for line in written.splitlines()]
        assert [line["event"] for line in lines] == ["drain.ended", "received", "webhook.answered"]
        assert {len(line["timestamp"]) for line in lines} == {27}
    else:
        assert "webhook.answered" in written
        assert not written.startswith("{")


class Pieces(io.StringIO):
    """Counts how often it is written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_many_lines_that_are_logged_together_are_one_write(monkeypatch):
    monkeypatch.setenv("SEGRELAY_LOG_FORMAT", "json")
    with redirect_stderr(Pieces()) as output:
        logs.configure(logging.INFO)
        logs.log_often("webhook.answered", [{"status": 200}, {"status": 503}])
        logs.log_often("webhook.answered", [])

    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [line["status"] for line in lines] == [200, 503]
    assert output.writes == 1
