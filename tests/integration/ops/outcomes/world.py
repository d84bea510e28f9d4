"""What tests of outcomes do again and again: count the rows, and compare them with the status."""

from collections import Counter
from pathlib import Path

import orjson

from segrelay.ops.outcomes.writing import writing_for
from tests.configuration import table
from tests.integration.ops.relay import EXIT

YEARS = "30d"


def recording(relay, **keys):
    """Let outcomes be recorded."""
    relay.configure(EXIT + table("outcomes", keep=YEARS, **keys))


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


def rows_in(folder: Path):
    """Return the rows of all files of a folder."""
    return [
        orjson.loads(line)
        for file in sorted(folder.glob("*.ndjson"))
        for line in file.read_bytes().splitlines()
    ]


def rows_of(file: Path):
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def write(relay):
    """Do steps of the writing until none is due; return their lines."""
    writing = writing_for(relay.client, relay.settings)
    lines = []
    while (step := writing.step()).more:
        lines.append(step.line)
    return [*lines, step.line]
