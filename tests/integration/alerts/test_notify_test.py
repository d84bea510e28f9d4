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
from tests.waiting import patient


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

    assert said.stdout == "The test message was taken.\n"
    ((came, _),) = chat.came
    assert came.path == "/secret-hook"
    assert came.body["text"].startswith("*segrelay (staging): ill: test*\n")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_address_that_takes_nothing_is_told_without_being_named(run, status):
    with (
        Endpoint(lambda _: (status, {})) as chat,
        pytest.raises(
            OperationsMustAct, match=rf"env:CHAT_URL\) took no message: .* {status}\."
        ) as told,
    ):
        run(f"{chat.url}/secret-hook")

    assert "secret-hook" not in str(told.value)
    assert "See whether the URL is right" in str(told.value)
    assert ("not followed" in str(told.value)) == (status == 302)


@pytest.mark.parametrize(("status", "reason"), [(200, ""), (500, "it answered 500")])
def test_the_json_says_whether_it_was_taken_and_why_not(run, status, reason):
    with Endpoint(lambda _: (status, {})) as chat:
        with suppress(OperationsMustAct):
            run(f"{chat.url}/secret-hook")
        printed = CliRunner().invoke(app, ["status", "--notify-test", "--json"]).stdout

    assert orjson.loads(printed) == {"sent": not reason, "reason": reason}


def test_nobody_there_is_told(run):
    with pytest.raises(OperationsMustAct, match="connection refused"):
        run("http://127.0.0.1:9/secret-hook")


def test_without_an_address_the_table_is_named(run):
    with pytest.raises(ConfigurationInvalid, match=r"has no \[operate.notify\]"):
        run("")


def test_an_address_in_the_clear_is_refused_without_being_named(run):
    with pytest.raises(ConfigurationInvalid, match=r"operate\.notify\.url: env:CHAT_URL") as told:
        run("http://chat.example.com/secret-hook")

    assert "secret-hook" not in str(told.value)


@pytest.mark.parametrize("option", ["--check", "--watch"])
def test_a_test_message_is_sent_alone(run, option):
    with pytest.raises(UsageWrong, match="exclude each other"):
        run("http://127.0.0.1:9/secret-hook", option)


def test_a_sandbox_run_says_that_it_sends_no_messages(run, monkeypatch):
    monkeypatch.setenv("SEGRELAY_SANDBOX", "1")

    with pytest.raises(ConfigurationInvalid, match="sandbox run sends no messages"):
        run("http://127.0.0.1:9/secret-hook")


def test_an_answer_that_trickles_in_holds_nothing_up(run):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        threading.Thread(target=trickle, args=(server,), daemon=True).start()
        started = time.monotonic()

        run(f"http://127.0.0.1:{server.getsockname()[1]}/secret-hook")

    assert time.monotonic() - started < patient(POST_SECONDS)


def trickle(server):
    """Answer one request a byte at a time, for half a minute."""
    connection, _ = server.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.3)
