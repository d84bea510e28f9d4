"""Keys and arguments that a script declares, and that both sides use by name."""

import pytest

from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    load_script,
    named_answer,
    named_key,
    named_keys,
    run_script,
    script_call,
)

SCRIPT = """\
#!lua
-- Answers with what it was given.
--@keys lease streams... members? others...
--@args token rows[id text] words... time
--@answer lease streams lacks others token rows words time
local function all(source, first, n)
  local found = {}
  for i = 1, n do found[i] = source[first + i] end
  return found
end
return answer{
  lease = key_lease, streams = all(KEYS, at_streams, n_streams), lacks = key_members or 'nobody',
  others = all(KEYS, at_others, n_others), token = arg_token, time = arg_time,
  rows = {all(ARGV, at_rows_id, n_rows), all(ARGV, at_rows_text, n_rows)},
  words = all(ARGV, at_words, n_words),
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
    ("streams", "members", "others", "rows", "words"),
    [
        ([], None, [], ([], []), []),
        (["{a}1"], "{a}m", ["{a}o"], (["1", "2"], [b"\x00", b"\xff"]), ["w"]),
        (["{a}1", "{a}2"], None, ["{a}o", "{a}p"], (["1"], ["t"]), ["w", "x", "y"]),
    ],
)
def test_a_script_finds_by_name_what_it_was_given_by_name(  # noqa: PLR0917
    redis_url, text, streams, members, others, rows, words
):
    ids, texts = rows
    call = script_call(
        text,
        Keys,
        streams=streams,
        members=members,
        others=others,
        token="token",
        rows={"id": ids, "text": texts},
        words=words,
        time=1_732_450_000_123_456,
    )

    with connect(redis_url) as client:
        found = told(client, text, call)

    def encoded(values):
        return [each if isinstance(each, bytes) else each.encode() for each in values]

    assert found == {
        "lease": b"{a}lease",
        "streams": encoded(streams),
        "lacks": (members or "nobody").encode(),
        "others": encoded(others),
        "token": b"token",
        "rows": [encoded(ids), encoded(texts)],
        "words": encoded(words),
        "time": b"1732450000123456",
    }
    assert named_key(text, call, "lease") == Keys.lease
    assert list(named_keys(text, call, "others")) == others


EMPTY = {"streams": [], "members": None, "others": [], "token": "", "words": [], "time": 0}
ROWS = {"id": [], "text": []}


def test_a_value_that_a_script_does_not_declare_is_refused(text):
    with pytest.raises(TypeError, match="nonsense"):
        script_call(text, Keys, **EMPTY, rows=ROWS, nonsense=1)


def test_a_value_that_a_script_declares_may_not_lack(text):
    with pytest.raises((AttributeError, KeyError)):
        script_call(text, Keys, **EMPTY)
