"""`segrelay status --notify-test` sends one message, and never shows where to."""

import socket
import threading
import time
from contextlib import closing, suppress

import orjson
import pytest
from typer.testing import CliRunner

from segrelay.ops.main import app
from segrelay.ops.status.alerts import POST_SECONDS
from segrelay.worker.errors import ConfigurationInvalid, OperationsMustAct, UsageWrong
from tests.commands import called
from tests.configuration import endpoint, settings_in, table, trigger
from tests.journeys.endpoint import Endpoint
from tests.waiting import allowed


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command with an address of messages, or with none."""
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))

    def run_with(url, *options, **keys):
        monkeypatch.setenv("CHAT_URL", url)
        notify = table("operate.notify", url="env:CHAT_URL") if url else ""
        notify += "".join(f'{key} = "{value}"\n' for key, value in keys.items())
        tables = (endpoint("one"), trigger("vip", destination="one", url="/"), notify)
        settings_in(tmp_path, *tables)
        return called("status", "--notify-test", *options)

    return run_with


def test_a_message_is_sent_in_the_form_of_the_chat(run):
    with Endpoint(lambda _: (200, {})) as chat:
        said = run(f"{chat.url}/secret-hook", format="slack", name="staging")
        document = orjson.loads(called("status", "--notify-test", "--json").stdout)

    assert said.stdout == "The test message was taken.\n"
    assert document == {"sent": True, "reason": ""}
    came, _ = chat.came[0]
    assert came.path == "/secret-hook"
    assert came.body["text"].startswith("*segrelay (staging): ill: test*\n")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_address_that_takes_nothing_is_told_without_being_named(run, status):
    with Endpoint(lambda _: (status, {})) as chat:
        with pytest.raises(
            OperationsMustAct, match=rf"env:CHAT_URL\) took no message: .* {status}\."
        ) as told:
            run(f"{chat.url}/secret-hook")
        printed = CliRunner().invoke(app, ["status", "--notify-test", "--json"]).stdout

    assert "secret-hook" not in str(told.value)
    assert "See whether the URL is right" in str(told.value)
    assert ("not followed" in str(told.value)) == (status == 302)
    document = orjson.loads(printed)
    assert (document["sent"], str(status) in document["reason"]) == (False, True)


NOBODY = "http://127.0.0.1:9/secret-hook"


@pytest.mark.parametrize(
    ("url", "options", "error", "why"),
    [
        (NOBODY, [], OperationsMustAct, "connection refused"),
        (NOBODY, ["--check"], UsageWrong, "exclude each other"),
        (NOBODY, ["--watch"], UsageWrong, "exclude each other"),
        ("", [], ConfigurationInvalid, r"has no \[operate.notify\]"),
        ("http://chat.example.com/secret-hook", [], ConfigurationInvalid, "url: env:CHAT_URL"),
    ],
)
def test_what_can_not_be_sent_is_refused_without_naming_the_address(run, url, options, error, why):
    with pytest.raises(error, match=why) as told:
        run(url, *options)

    assert "secret-hook" not in str(told.value)


def test_a_sandbox_run_says_that_it_sends_no_messages(run, monkeypatch):
    monkeypatch.setenv("SEGRELAY_SANDBOX", "1")

    with pytest.raises(ConfigurationInvalid, match="sandbox run sends no messages"):
        run(NOBODY)


def test_an_answer_that_trickles_in_holds_nothing_up(run):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        threading.Thread(target=trickle, args=(server,), daemon=True).start()
        started = time.monotonic()

        run(f"http://127.0.0.1:{server.getsockname()[1]}/secret-hook")

    assert time.monotonic() - started < allowed(POST_SECONDS)


def trickle(server):
    """Answer one request a byte at a time, for half a minute."""
    connection, _ = server.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.3)
