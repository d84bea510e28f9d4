"""What tests of outcomes do again and again: count the rows, and compare them with the status."""

from collections import Counter
from pathlib import Path

import orjson


def counted(rows):
    """Return the sums of rows as `status` counts them, by trigger, outcome and reason."""
    sums = Counter()
    for row in rows:
        sums[row["trigger"], row["outcome"], row["reason"] or ""] += row["counts"]
    return {key: count for key, count in sums.items() if count}


def counts_of(status):
    """Return what `status` counts in the same form."""
    found = {}
    for name, one in status["triggers"].items():
        for kind in ("skipped", "dead"):
            for reason, count in one[f"{kind}_by_reason"].items():
                found[name, kind, reason] = count
        for kind in ("delivered", "discarded"):
            found[name, kind, ""] = one[kind]
    return {key: count for key, count in found.items() if count}


def rows_of(*files: Path):
    """Return the rows of files."""
    return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]
