"""Compare compiled templates with the worker's engines on random ones; gojsonnet judges.

What only the engines answer must be what jsonnet or gojsonnet makes of the untouched files.

    python -m tools.fuzz [--seed 1] [--seconds 60] [--renders 1000000] [--report FOLDER]

The exit code is 1 if that contradicts what would be sent. The report has all differences.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

from segrelay.jsonnet.compiled import Compiled, compile_template
from segrelay.jsonnet.compiled.running.limits import AssertFailed, Doubtful, Exhausted
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.templates import LYTEMPLATES
from tools.fuzz.engines import EngineOutcome, FuzzEngine, judged
from tools.fuzz.grammar import FIELDS, HELPERS, Grammar, helper

_EVENTS: Final = (
    {"id": "0a" * 16, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"},
    {"id": "0b" * 16, "slug": "old", "event": "exit", "exit": "2026-11-01T10:00:00Z"},
    {"id": "0c" * 16, "slug": "a", "event": "change"},
)
_VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "email": ("ann@example.com", "", "É@example.com"),
    "age": (34, 0, -1, 1.5, "34", 3.0, 12345678901, -0.0, 0.1, -2.5, 0.95, 1e-7, 1e21),
    "name": ("Ann", "日本語", ' "x" ', "a"),
    "tags": ([], ["a", "b", "a"], [1, 2.5, None], ["x"], [3, 1, 2]),
    "map": ({}, {"a": 1}, {"b": [1, {"a": None}], "a": "x"}, {"email": True}),
    "rows": ([{"a": 1}, {"a": 2}], [], [{"b": "x"}], [[1], [2, 3]]),
    "flag": (True, False),
    "nothing": (None,),
    "city": ("Springfield", "São Paulo", ""),
    "text": ("one two", "a,b,c", "12", "\n\t", "%s"),
    "_segments": (["vip", "news"], [], [""]),
}
_ODD: Final[tuple[Any, ...]] = (None, True, 7, "", [], {}, "x", [None], 0.5)
SETTINGS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"setting": "s", "field": "email"},
    {"setting": None, "field": "map"},
)


def person(random: Random) -> dict[str, Any]:
    """Return a random profile, now and then with a value of a wrong type."""
    profile: dict[str, Any] = {}
    for name in FIELDS:
        if name in _VALUES and random.random() < 0.8:  # noqa: PLR2004
            is_odd = random.random() < 0.1  # noqa: PLR2004
            profile[name] = random.choice(_ODD if is_odd else _VALUES[name])
    if random.random() < 0.95:  # noqa: PLR2004
        profile["segment_events"] = [random.choice(_EVENTS)]
    return profile


_PEOPLE: Final = 12
_MAX_MESSAGE: Final = 300
_TEMPLATE: Final = "t.jsonnet"
_COMPARED: Final = 40
"""Number of characters of a message that are compared with gojsonnet's."""
_JUDGES_WORDS: Final = {"null": ("Assertion failed",), '"" (empty string)': ("",)}
"""Messages of gojsonnet by those of compiled templates, for asserts without a message or with "".
If the message itself is null, both print `null`."""


@dataclass(slots=True)
class Findings:
    """The results of a run of the fuzzer so far.

    Args:
        counts: Renders by compiled outcome, the engines' outcome, and the judge's verdict if any.
        refused: Templates that were not compiled, by the reason.
        wrong: Differences in which the judge contradicts the compiled template.
        listed: All other differences.
    """

    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Fuzzer:
    """Generates random templates, and compares what the compiled form and an engine render."""

    random: Random
    folder: Path
    findings: Findings = field(default_factory=Findings)
    engine: FuzzEngine = field(default_factory=FuzzEngine)

    def one_template(self) -> None:
        """Make one template, render it compiled and by an engine, and compare the results."""
        texts = _files(self.random)
        for name, text in texts.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        settings = self.random.choice(SETTINGS)
        people = [person(self.random) for _ in range(_PEOPLE)]
        try:
            bundle = TemplateFolder(self.folder, LYTEMPLATES).bundle(_TEMPLATE)
        except TemplateBroken:
            self.findings.refused["(it names what nobody knows: never loaded)"] += 1
            return
        made = compile_template(bundle)
        if not isinstance(made, Compiled):
            self.findings.refused[made.what] += 1
            return
        profiles = [orjson.dumps(each) for each in people]
        said = self.engine.render(self.folder, _TEMPLATE, profiles, orjson.dumps(settings))
        if said[0][0] == "broken":
            self.findings.refused["(rjsonnet does not parse it: never loaded)"] += 1
            return
        for profile, theirs in zip(profiles, said, strict=True):
            self._compare(_ours(made, profile, settings), theirs, profile, settings, texts)

    def _compare(
        self,
        ours: tuple[str, Any],
        theirs: EngineOutcome,
        profile: bytes,
        settings: dict[str, Any],
        texts: dict[str, str],
    ) -> None:
        key = f"{ours[0]} / {theirs[0]}"
        is_unsure = ours[0] == "unsure"
        is_same = ours[0] == theirs[0] and _same(ours[1], theirs[1])
        if is_same or (is_unsure and theirs[0] != "value"):
            self.findings.counts[key + (" (same)" if is_same else "")] += 1
            return
        asked = (self.folder, _TEMPLATE, [profile], orjson.dumps(settings))
        [verdict] = judged(*asked)
        is_ours = agrees(theirs if is_unsure else ours, verdict)
        if is_unsure and not is_ours:
            [verdict] = judged(*asked, "jsonnet")
            is_ours = agrees(theirs, verdict)
        self.findings.counts[f"{key}: judge {'agrees' if is_ours else f'says {verdict[0]}'}"] += 1
        if is_unsure and is_ours:
            return
        case = {
            "ours": ours,
            "engines": theirs,
            "judge": verdict,
            "profile": orjson.loads(profile),
            "settings": settings,
            "files": texts,
        }
        (self.findings.listed if is_ours else self.findings.wrong).append(case)


def _files(random: Random) -> dict[str, str]:
    texts = {
        name: helper(random, name, HELPERS[:number] if name != "plain.libsonnet" else ())
        for number, name in enumerate(HELPERS)
    }
    texts[_TEMPLATE] = Grammar(random, HELPERS).template()
    return texts


def _ours(made: Compiled, profile: bytes, settings: dict[str, Any]) -> tuple[str, Any]:
    before = orjson.loads(profile)
    given = orjson.loads(profile)
    try:
        body = made.render(given, settings)
    except AssertFailed as failed:
        return "assert", failed.message.strip()[:_MAX_MESSAGE]
    except Exhausted as exhausted:
        return "exhausted", exhausted.message
    except Doubtful as doubt:
        return "unsure", doubt.why
    assert given == before, "the profile was changed"
    text = orjson.dumps(body)
    _scribble(body)
    assert given == before, "the body shares a container with the profile"
    return "value", json.loads(text)


def _scribble(body: Any) -> None:
    """Change every array and object of a body, to find those that it shares with the profile."""
    if isinstance(body, list):
        for each in body:
            _scribble(each)
        body.append("changed")
    elif isinstance(body, dict):
        for each in body.values():
            _scribble(each)
        body["changed"] = True


def _same(mine: Any, other: Any) -> bool:
    """Compare JSON values as doubles; a boolean is no number."""
    if isinstance(mine, bool) or isinstance(other, bool):
        return mine is other
    if isinstance(mine, int | float) and isinstance(other, int | float):
        return float(mine) == float(other)
    if isinstance(mine, list) and isinstance(other, list):
        return len(mine) == len(other) and all(map(_same, mine, other))
    if isinstance(mine, dict) and isinstance(other, dict):
        return mine.keys() == other.keys() and all(_same(mine[key], other[key]) for key in mine)
    return bool(mine == other)


def agrees(ours: tuple[str, Any], verdict: EngineOutcome) -> bool:
    """Say whether gojsonnet agrees with a compiled template; it reports an assert as an error."""
    if ours[0] == "assert":
        said = (ours[1], *_JUDGES_WORDS.get(ours[1], ()))
        return verdict[0] == "error" and any(_begins(str(verdict[1]), each) for each in said)
    if ours[0] == "exhausted":
        return verdict[0] in ("error", "died")
    return verdict[0] == "value" and _same(ours[1], verdict[1])


def _begins(message: str, said: str) -> bool:
    """Compare the first lines of messages: an engine reports only the first line of an assert.

    An empty message only equals an empty message.
    """
    beginning = said.partition("\n")[0][:_COMPARED]
    return message.startswith(beginning) if beginning else not message


def main(arguments: Sequence[str]) -> int:
    """Fuzz until the time or the number of renders is used up, and print the results."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--renders", type=int, default=10**9)
    parser.add_argument("--report", type=Path, default=None)
    options = parser.parse_args(arguments)
    ends_at = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory(prefix="segrelay-fuzz-") as folder:
        fuzzer = Fuzzer(Random(options.seed), Path(folder))
        try:
            templates = 0
            while time.monotonic() < ends_at and fuzzer.findings.counts.total() < options.renders:
                fuzzer.one_template()
                templates += 1
        finally:
            fuzzer.engine.close()
    _say(fuzzer.findings, templates)
    if options.report is not None:
        options.report.mkdir(parents=True, exist_ok=True)
        for name in ("wrong", "listed"):
            cases = getattr(fuzzer.findings, name)
            (options.report / f"{name}.json").write_text(
                json.dumps(cases, indent=1), encoding="utf-8"
            )
    return 1 if fuzzer.findings.wrong else 0


def _say(findings: Findings, templates: int) -> None:
    sys.stdout.write(f"{templates} templates, {findings.counts.total()} renders\n")
    for key, count in sorted(findings.counts.items(), key=lambda each: -each[1]):
        sys.stdout.write(f"{count:>9}  {key}\n")
    for what, count in findings.refused.most_common(12):
        sys.stdout.write(f"{count:>9}  templates are not compiled: {what}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
