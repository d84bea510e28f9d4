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
        "worker/core/ledger.py",
        "return same_trigger or direction != own_direction",
        "return (same_trigger or direction != own_direction) and time_us > own_us",
    ),
    "a state event is skipped though its person has left since": Defect(
        "worker/core/ledger.py",
        "    return not any(\n        is_newer(",
        "    return True or any(\n        is_newer(",
    ),
    "a body that overwrites the list is not corrected": Defect(
        "worker/batch/pack.py",
        "    newer = knowledge(record, event, batch.drain.numbers.slugs)\n",
        "    newer = knowledge(type(record)(), event, batch.drain.numbers.slugs)\n",
    ),
    "a worker that vanished leaves no doubt": Defect(
        "worker/drain.py",
        "    if not vanished:\n        return\n",
        "    return\n",
    ),
    "two hold the lease of a partition": Defect(
        f"{_LUA}/take.lua",
        "if left > 0 and redis.call('HGET', key_lease, 'token') ~= arg_token then",
        "if false then",
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
    "what an operator decides about is sent again": Defect(
        "worker/batch/read.py",
        'if delivery.loaded.on_ambiguous == "dead_letter" and is_in_doubt(record, delivery.event):',
        "if False:",
    ),
    "the sweep wakes nobody": Defect(
        f"{_LUA}/due.lua",
        "if lock_left(KEYS[1]) > 0 then return {0, waking, 1} end\n",
        "if true then return {0, waking, 1} end\n",
    ),
    "erasing waits for an answer that can not come any more": Defect(
        "ops/person.py",
        "if any(float(ends.get(name, usual_ms)) > now_ms(self.client) for name in own):",
        "if own:",
    ),
    "a settled delivery has no row": Defect(
        f"{_LUA}/settle.lua", "if n_ends > 0 then record(", "if false then record("
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
