"""What an assistant is told, beside what the command prints."""

import orjson
import pytest

from segrelay.ops.mcp.command import LOOKS, Tools
from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import payload


@pytest.fixture
def given(relay, sandbox, call):
    """Return the arguments of each look about a person who was delivered, died and was refused."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(payload("ann@example.com"), payload("ben@example.com", status="poisoned"))
    call("pause", "vip-exit", "--why", "a test")
    (letter,) = orjson.loads(call("dlq", "list", "--json").stdout)
    return {
        "why": {"profile": "ann@example.com"},
        "dead_letters": {"audience": "vip", "limit": 5},
        "dead_letter": {"id": letter["id"]},
        "acts": {"what": "pause"},
        "preview": {"payload": payload("eva@example.com")},
    }


CHANGING = {"problems", "status"}
"""Looks with times of now in them."""


def test_a_look_tells_what_its_command_prints_and_refuses_what_that_refuses(
    given, call, capsys, tmp_path
):
    for name, look in LOOKS.items():
        arguments = given.get(name, {})

        told = orjson.loads(Tools(with_acts=False).call(name, arguments))

        assert not capsys.readouterr().out, name
        (tmp_path / "payload.json").write_bytes(orjson.dumps(arguments.get("payload")))
        values = {name: [str(value)] for name, value in arguments.items()}
        values["payload"] = [str(tmp_path / "payload.json")]
        printed = orjson.loads(call(*look.words(values, *look.flags, "--json")).stdout)
        if name in CHANGING:
            told, printed = set(told), set(printed)
        assert told == printed, name
    with pytest.raises(UsageWrong, match="limit"):
        Tools(with_acts=False).call("dead_letters", {"limit": "many"})
