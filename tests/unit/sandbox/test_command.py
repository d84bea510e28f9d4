"""The options of the sandbox become its switches, or a message."""

from __future__ import annotations

import pytest

from segrelay.ops.sandbox import sandbox
from segrelay.sandbox.__main__ import settings_of
from segrelay.worker.errors import UsageWrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": "{"}, "--settings is not JSON"),
        ({"settings": "[]"}, "--settings has to be a JSON object"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(UsageWrong, match=message):
        sandbox(**options)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ('{"error_shares": {"500": "much"}}', "error_shares.500"),
        ('{"error_shares": {"200": 0.1}}', "no status from 400 to 599"),
        ('{"typo": 1}', "typo: Extra inputs"),
        ('{"lost_answers": 0.6, "lost_requests": 0.6}', "must be 0 to 1"),
        ('{"error_shares": {"500": -0.1}}', "must be 0 to 1"),
        ("{", "--settings is not JSON"),
    ],
)
def test_switches_that_make_no_sense_end_the_sandbox_with_a_message(switches, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        settings_of(switches)

    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("host", "warns"), [("192.0.2.1", True), ("127.0.0.1", False)])
def test_a_host_that_others_reach_is_warned_of(host, warns, capsys):
    with pytest.raises(UsageWrong, match="has to be a JSON object"):
        sandbox(host=host, settings="[]")

    assert ("nothing asks for a password" in capsys.readouterr().err) is warns
