"""Break every part of a running segrelay, and report which promises were broken."""

from __future__ import annotations

import argparse
import inspect
import re
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

_ARGUMENT: Final = re.compile(r"(?ms)^    (\w+): (.+?)\.$")
"""A name and its text in the docstring of `Plan`."""


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
    texts = dict(_ARGUMENT.findall(inspect.cleandoc(Plan.__doc__ or "")))
    for each in fields(Plan):
        parser.add_argument(
            "--" + each.name.replace("_", "-"),
            type=type(each.default),
            default=each.default,
            choices=(SINGLE, SENTINEL, CLUSTER) if each.name == "redis" else None,
            help=f"{texts[each.name]} (%(default)s)",
        )
    parser.add_argument("--json", action="store_true", help="print one document")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
