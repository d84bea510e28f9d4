"""Defects of the past, to be planted again: the simulator has to find each.

Each replaces one text of a source. `copied_with` makes a copy of the package with one of them.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_LUA = "worker/adapters/redis/lua"


class Defect(NamedTuple):
    """A defect.

    Args:
        path: Of the source, from the root of the repository.
        was: The text as it is, which the source has once.
        becomes: The text with the defect.
    """

    path: str
    was: str
    becomes: str


DEFECTS = {
    "an older event undoes a newer one": Defect(
        "worker/core/ledger.py", "        return Skip.SUPERSEDED\n", "        pass\n"
    ),
    "of two events at one time the entrance wins": Defect(
        "worker/core/supersede.py",
        "return same_trigger or newer.direction != older.direction",
        "return (same_trigger or newer.direction != older.direction)"
        " and newer.time_us > older.time_us",
    ),
    "a state event is skipped though its person has left since": Defect(
        "worker/core/ledger.py",
        "    return not any(\n        is_newer(",
        "    return True or any(\n        is_newer(",
    ),
    "a body that overwrites the list is not corrected": Defect(
        "worker/batch/pack.py",
        "        newer = knowledge(record, event, self.batch.numbers.slugs)\n",
        "        newer = knowledge(type(record)(), event, self.batch.numbers.slugs)\n",
    ),
    "bytes are written without the lease": Defect(
        "worker/batch/send.py",
        "is_given = self.send_time is not None and self.watch.may_send()",
        "is_given = self.send_time is not None",
    ),
    "an intent is closed while its request may take effect": Defect(
        "worker/batch/conclude.py",
        "        stays_open = possibly_applied and not is_over\n",
        "        stays_open = False\n",
    ),
    "a worker that vanished leaves no doubt": Defect(
        "worker/drain.py",
        "        if not vanished:\n            return\n",
        "        return\n",
    ),
    "what is gone already is counted": Defect(
        f"{_LUA}/settle.lua",
        "      if redis.call('XDEL', group.stream, id) == 1 then\n",
        "      if redis.call('XDEL', group.stream, id) >= 0 then\n",
    ),
    "two hold the lease of a partition": Defect(
        f"{_LUA}/take.lua",
        "if left > 0 and redis.call('HGET', key_lease, 'token') ~= arg_token then",
        "if false then",
    ),
    "whoever lost the lease settles all the same": Defect(
        f"{_LUA}/settle.lua",
        "if token ~= arg_token then return {0, 0, 0} end",
        "",
    ),
    "an intent is written without the lease": Defect(
        f"{_LUA}/intent.lua",
        "if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end\n",
        "",
    ),
    "a settlement that comes again is counted again": Defect(
        f"{_LUA}/settle.lua",
        "then return {2, 0, tonumber(opened or 0)} end",
        "then local _ = 0 end",
    ),
    "a job's block that comes again is accepted again": Defect(
        "worker/contract/redis/lua/accept.lua",
        "  if seen == position then\n",
        "  if false then\n",
    ),
    "what is accepted is not counted": Defect(
        "worker/contract/redis/lua/accept.lua",
        "if #fields == 1 then redis.call",
        "if #fields == 1 and not live then redis.call",
    ),
    "a letter that is replayed still counts as dead": Defect(
        "ops/state/lua/leave.lua",
        "    count_outcome(key_counts, 'dead', ARGV[at_letters_reason + i], name, -1)\n",
        "",
    ),
    "who is erased keeps a ledger": Defect(
        "ops/state/lua/forget.lua",
        "return {redis.call('DEL', KEYS[2]),",
        "return {redis.call('EXISTS', KEYS[2]),",
    ),
    "a discarded delivery has no row": Defect(
        "ops/state/lua/take_back.lua",
        "record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2])\n",
        "",
    ),
    "one profile stands twice in a request": Defect(
        "worker/core/supersede.py",
        "            if supersedes(entrants[top][1], entrants[position][1]):\n",
        "            if False:\n",
    ),
    "what an operator decides about is sent again": Defect(
        "worker/batch/judge.py",
        'if delivery.loaded.on_ambiguous == "dead_letter" and is_in_doubt(record, delivery.event):',
        "if False:",
    ),
    "a lease of before the clock was set back lasts for ever": Defect(
        "worker/contract/redis/lua/_lock.lua",
        "  if left <= longest then return math.max(left, 0) end\n",
        "  if true then return math.max(left, 0) end\n",
    ),
    "a wait of before the clock was set back lasts": Defect(
        f"{_LUA}/_due.lua",
        "return not is_former and till > now and till <= now + longest",
        "return not is_former and till > now",
    ),
    "the sweep wakes nobody": Defect(
        f"{_LUA}/due.lua",
        "if lock_left(KEYS[1]) > 0 then return 0 end\n",
        "if true then return 0 end\n",
    ),
    "erasing waits for an answer that can not come any more": Defect(
        "ops/person/erasing.py",
        "if all(float(ends.get(name, math.inf)) <= now_ms(self.client) for name in own):",
        "if not own:",
    ),
}


def copied_with(defect: Defect, folder: Path) -> Path:
    """Return a folder from which `segrelay` is imported with a defect, and `tests` as they are."""
    package = folder / "segrelay"
    package.mkdir()
    shutil.copy(ROOT / "segrelay" / "__init__.py", package)
    room, _, _ = defect.path.partition("/")
    for link in (ROOT / "segrelay").iterdir():
        if link.is_dir() and link.name != room:
            (package / link.name).symlink_to(link.resolve())
    shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    source = package / defect.path
    source.write_text(source.read_text().replace(defect.was, defect.becomes, 1))
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder
