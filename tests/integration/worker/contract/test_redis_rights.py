"""The rights in Redis that are shipped: all that the code needs, and nothing that is dangerous.

The tests themselves run as this user (`tests/redis_user.py`), so what is missing fails elsewhere.
"""

import re
from pathlib import Path

from segrelay.ops.embedded import ensure_running, stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import ResponseError
from segrelay.worker.contract.redis.connection import connect
from tests.ledger_keys import is_personal
from tests.redis_user import USERS, make_user

ROOT = Path(__file__).parents[4]
NEEDED_DANGEROUS = {"info", "config|get"}
FORBIDDEN = {
    "flushall", "flushdb", "keys", "config|set", "shutdown", "debug", "save", "bgsave",
    "acl|setuser",
    "replicaof", "monitor", "client|kill", "module|load", "migrate", "restore", "script|flush",
    "function|load", "failover", "swapdb",
}  # fmt: skip


def may_run(client, name):
    # By a script: the client does not understand the answer about a subcommand.
    arity = client.eval("return redis.call('COMMAND', 'INFO', ARGV[1])[1][2]", 0, name)
    words = name.split("|")
    filler = ["{segrelay}:x"] * max(0, abs(arity) - len(words))
    try:
        answer = client.execute_command("ACL", "DRYRUN", "segrelay", *words, *filler)
    except ResponseError:
        return False  # the name of several commands, and none by itself
    return b"no permissions to run" not in answer


def test_nothing_dangerous_is_allowed(tmp_path):
    with connect(ensure_running(tmp_path).url) as client:
        make_user(client)
        allowed = {name for name in NEEDED_DANGEROUS | FORBIDDEN if may_run(client, name)}
    stop(tmp_path)

    assert allowed == NEEDED_DANGEROUS


def test_the_documents_show_the_rights_as_they_are_shipped():
    (line,) = [one for one in USERS.read_text().splitlines() if one.startswith("user ")]

    assert line in (ROOT / "docs/security.md").read_text()


def test_the_list_of_keys_marks_those_that_hold_peoples_data_and_no_other():
    marked = re.findall(r"^\| `([^`]+)` \| \w* ?\| \\\*", keys.__doc__, re.MULTILINE)

    assert len(marked) == 7
    for name in marked:
        key = name.replace("{d:p}", "{insider:3}").replace("\\|", "|").replace("…", "records")
        assert is_personal(key.encode()), name
    of = keys.PartitionKeys("insider", 3)
    others = (of.dead_letter_times, of.streams, of.synctokens, of.causes)
    for key in (*others, keys.job("load"), keys.sync("vips")):
        assert not is_personal(key.encode()), key
