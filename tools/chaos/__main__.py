"""Break every part of a running segrelay, and report which promises were broken."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.ops.terminal.console import mention, print_json, say, table
from tools.chaos.plan import CLUSTER, SENTINEL, SINGLE, Plan
from tools.chaos.run import ChaosRun

_HELP: Final = {
    "events": "different events; some are sent twice",
    "aborts": "backfills that are aborted while their readers wait, every second one stopped",
    "aborted_rows": "rows of each of these backfills",
    "rewrites": "times that an export is rewritten in place while a sync reads it",
    "exported": "people who are in every version of the export",
    "people": "people whom the events concern",
    "regulars": "members of an audience that a sync compares with Lytics",
    "seed": "the same seed makes the same events, orders and disruptions",
    "partitions": "partitions of the destination, over which people are spread",
    "concurrency": "processes in each",
    "worker_kills": "SIGKILLs of workers' process groups and of single children",
    "redis_kills": "SIGKILLs of Redis",
    "receiver_kills": "SIGKILLs of the receiver of webhooks",
    "reader_kills": "SIGKILLs of readers of backfills",
    "stops": "SIGSTOPs for longer than a lease",
    "master_stopped_seconds": "duration of each SIGSTOP of a master",
    "orderly_stops": "SIGTERMs of workers",
    "restarts": "restarts of all workers and of Redis",
    "limit_changes": "changes of the sandbox's limit",
    "states": "state events of all audiences of a person, for each event",
    "redis": "what is used and broken: a single Redis, one behind Sentinels, or a Cluster",
    "minutes": "a run that takes longer has failed",
}


def main() -> int:
    """Run the chaos test, and report; the exit code is 1 if any promise was broken."""
    arguments = vars(_arguments())
    as_json = arguments.pop("json")
    folder = Path(tempfile.mkdtemp(prefix="segrelay-chaos-"))
    document = ChaosRun(Plan(**arguments), folder, mention).verdict().document()
    if as_json:
        print_json(document)
    else:
        _show(document)
    if not document["violations"]:
        shutil.rmtree(folder)
        return 0
    report = folder / "report.json"
    report.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    mention(f"The report, with events and ledgers of wrong profiles, and all logs: {report}")
    return 1


def _show(document: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = []
    for name, value in document.items():
        what = name.replace("_", " ")
        if isinstance(value, dict) and name != "plan":
            rows += [(f"{what}: {kind}", n) for kind, n in value.items()]
        elif isinstance(value, int | float):
            rows.append((what, value))
    table(("what", "how many"), rows)
    table(
        ("seconds", "settled", "waiting", "a second", "worker MB", "receiver MB", "Redis MB"),
        [tuple(sample.values()) for sample in document["course"]],
    )
    for violation in document["violations"]:
        mention(f"VIOLATION: {violation}")
    say("Every promise was kept." if document["kept"] else "NOT every promise was kept.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    for each in fields(Plan):
        option = "--" + each.name.replace("_", "-")
        kind: Any = type(each.default)
        if kind is bool:
            parser.add_argument(option, action="store_true", help=_HELP[each.name])
        elif each.name == "redis":
            parser.add_argument(
                option, choices=(SINGLE, SENTINEL, CLUSTER), default=SINGLE, help=_HELP[each.name]
            )
        else:
            text = f"{_HELP[each.name]} (%(default)s)"
            parser.add_argument(option, type=kind, default=each.default, help=text)
    parser.add_argument("--json", action="store_true", help="print one document")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
