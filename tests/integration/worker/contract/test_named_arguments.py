"""Keys and arguments that a script declares, and that both sides use by name."""

import pytest

from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    first_keys,
    load_script,
    named_answer,
    named_key,
    run_script,
    script_call,
)

SCRIPT = """\
#!lua
-- Answers with what it was given.
--@keys lease streams... others...
--@args token time ids... texts...
--@answer lease streams others token ids texts time
local function all(source, first, n)
  local found = {}
  for i = 1, n do found[i] = source[first + i] end
  return found
end
return answer{
  lease = key_lease, token = arg_token, time = arg_time,
  streams = all(KEYS, at_streams, n_streams), others = all(KEYS, at_others, n_others),
  ids = all(ARGV, at_ids, n_ids), texts = all(ARGV, at_texts, n_texts),
}
"""


@pytest.fixture
def text(tmp_path):
    (tmp_path / "told.lua").write_text(SCRIPT)
    return load_script("told", tmp_path)


class Keys:
    lease = "{a}lease"


def told(client: Redis, text: str, call: ScriptCall):
    return named_answer(text, run_script(client, text, call.keys, call.args))


@pytest.mark.parametrize(
    ("streams", "others", "ids", "texts"),
    [
        ([], [], [], []),
        (["{a}1"], ["{a}o"], ["1", "2"], [b"\x00"]),
        (["{a}1", "{a}2"], ["{a}o", "{a}p"], ["1"], ["t", b"\xff", "y"]),
    ],
)
def test_a_script_finds_by_name_what_it_was_given_by_name(  # noqa: PLR0917
    redis_url, text, streams, others, ids, texts
):
    lists = {"streams": streams, "others": others, "ids": ids, "texts": texts}
    call = script_call(text, Keys, **lists, token="token", time=1_732_450_000_123_456)

    with connect(redis_url) as client:
        found = told(client, text, call)

    assert found == {
        "lease": b"{a}lease",
        "token": b"token",
        "time": b"1732450000123456",
        **{
            name: [each if isinstance(each, bytes) else each.encode() for each in values]
            for name, values in lists.items()
        },
    }
    assert named_key(text, call, "lease") == Keys.lease
    assert list(first_keys(text, call)) == streams


EMPTY = {"streams": [], "others": [], "token": "", "ids": [], "time": 0}


def test_values_that_a_script_does_not_declare_or_that_lack_are_refused(text):
    with pytest.raises(TypeError, match="nonsense"):
        script_call(text, Keys, **EMPTY, texts=[], nonsense=1)
    with pytest.raises((AttributeError, KeyError)):
        script_call(text, Keys, **EMPTY)
