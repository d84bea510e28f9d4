"""Checks a template on samples: does it render, and do all engines and ways agree about the value.

Samples are rendered in processes of their own: a template may kill the one that renders it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, assert_never

import orjson

from worker.adapters.isolated_renderer import Killed, render_isolated
from worker.adapters.jsonnet_errors import Failure
from worker.adapters.jsonnet_judge import Engine, judge
from worker.adapters.renderer import Asserted, Rendered, Result, Row, TemplateFailed
from worker.adapters.template_files import TemplateFolder
from worker.errors import TemplateBroken

RENDER_SECONDS: Final = 20.0
RENDER_MEMORY_BYTES: Final = 1 << 30
_AUDIENCE_ATTRIBUTE: Final = "audience_attribute"
_DEFAULT_AUDIENCE_ATTRIBUTE: Final = "lytics_computed_attr"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A sample to render.

    Args:
        label: What it is, e.g. `enter` or `trigger vip-enter`.
        profile: With one entry in `segment_events`.
        settings: The trigger's settings.
    """

    label: str
    profile: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def text(self) -> bytes:
        """The profile as the renderer takes it."""
        return orjson.dumps(dict(self.profile))

    @property
    def settings_text(self) -> bytes:
        """The settings as the engines take them."""
        return orjson.dumps(dict(self.settings))


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Args:
        level: An error makes the template unfit; a warning is worth a look.
        message: What is wrong and what to do; begins with the place where there is one.
        file: "" where it is about no place.
        line: 1-based, 0 for none.
        column: 1-based, 0 for none.
    """

    level: Literal["error", "warning"]
    message: str
    file: str = ""
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The check of one template.

    Args:
        template: Relative to the templates folder.
        content_hash: "" where it does not load.
        renders: For each case what came out, in words.
        findings: In the order of finding.
    """

    template: str
    content_hash: str
    renders: Mapping[str, str]
    findings: Sequence[Finding]

    @property
    def is_fit(self) -> bool:
        """Nothing but warnings was found."""
        return all(finding.level != "error" for finding in self.findings)


def check_template(folder: Path, template: str, cases: Sequence[Case]) -> Report:
    """Load a template, render the cases, and compare with what other engines make of it."""
    try:
        bundle = TemplateFolder(folder).bundle(template)
        results = _rendered(folder, template, cases)
    except TemplateBroken as error:
        place = (error.file, error.line, error.column)
        return Report(template, "", {}, [Finding("error", error.message, *place)])
    killers = [case.label for case in cases if results[case] is None]
    if killers:
        return Report(template, bundle.content_hash, {}, [*map(_kills, killers)])
    rendered = [(case, result) for case, result in results.items() if result is not None]
    findings = list(_findings_about_renders(rendered))
    for engine in engines():
        for settings, group in _by_settings(cases).items():
            judged = judge(engine, bundle, [case.text for case in group], settings)
            for case, said in zip(group, judged, strict=True):
                findings.extend(_disagreements(engine, case, results[case], said))
    renders = {case.label: in_words(result) for case, result in rendered}
    return Report(template, bundle.content_hash, renders, findings)


def engines() -> tuple[Engine, ...]:
    """Return the engines that judge; `gojsonnet` only where it is installed."""
    if find_spec("_gojsonnet") is None:
        return ("rjsonnet", "jsonnet")
    return ("rjsonnet", "jsonnet", "gojsonnet")


def in_words(result: Result) -> str:
    """Say in a line what came out."""
    match result:
        case Rendered():
            return "rendered"
        case Asserted(message):
            return f"skipped: {message}"
        case TemplateFailed(message, file, line):
            return f"failed: {f'{file}:{line}: ' if line else ''}{message}"
        case _:
            assert_never(result)


def _by_settings(cases: Sequence[Case]) -> dict[bytes, list[Case]]:
    groups: dict[bytes, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.settings_text, []).append(case)
    return groups


def _rendered(folder: Path, template: str, cases: Sequence[Case]) -> dict[Case, Result | None]:
    """Return the results, None where rendering killed the process or did not end."""
    results: dict[Case, Result | None] = {}
    for group in _by_settings(cases).values():
        waiting = group
        while waiting:
            outcome = render_isolated(
                folder,
                template,
                [Row(case.text) for case in waiting],
                waiting[0].settings,
                seconds=RENDER_SECONDS,
                memory_bytes=RENDER_MEMORY_BYTES,
            )
            is_killed = isinstance(outcome, Killed)
            done = [*outcome.results, None] if isinstance(outcome, Killed) else outcome
            results.update(zip(waiting, done, strict=not is_killed))
            waiting = waiting[len(done) :]
    return {case: results[case] for case in cases}


def _kills(label: str) -> Finding:
    return Finding(
        "error",
        f"rendering the sample ({label}) ends or hangs the process: look for a value that refers to"
        " itself, an endless recursion, or a huge repetition.",
    )


def _findings_about_renders(rendered: Sequence[tuple[Case, Result]]) -> Iterator[Finding]:
    if rendered and not any(isinstance(result, Rendered) for _, result in rendered):
        said = "; ".join(f"{case.label}: {in_words(result)}" for case, result in rendered)
        yield Finding("warning", f"no sample renders ({said}).")
    seen: set[str] = set()
    for case, result in rendered:
        if not isinstance(result, Rendered):
            continue
        attribute = case.settings.get(_AUDIENCE_ATTRIBUTE, _DEFAULT_AUDIENCE_ATTRIBUTE)
        for message in overwritten_audiences(json.loads(result.body), str(attribute)):
            if message not in seen:
                seen.add(message)
                yield Finding("warning", message)


def overwritten_audiences(body: object, attribute: str) -> Iterator[str]:
    """Say where a body overwrites the list of a person's audiences instead of appending to it."""
    users = body.get("users") if isinstance(body, dict) else None
    for user in users if isinstance(users, list) else []:
        if not isinstance(user, dict) or not _overwrites(user):
            continue
        attributes = user.get("attributes")
        custom = attributes.get("custom") if isinstance(attributes, dict) else None
        if isinstance(custom, dict) and isinstance(custom.get(attribute), list):
            word = "append: false" if "append" in user else "not_append: true"
            yield (
                f"{word} overwrites {attribute} with the list as it was at that event, so an older"
                " event brings back what a newer exit took away; leave it out and send only the"
                " slug of the audience."
            )


def _overwrites(user: Mapping[str, Any]) -> bool:
    if "append" in user:
        return user["append"] is False
    return user.get("not_append") is True


def _disagreements(
    engine: Engine, case: Case, result: Result | None, said: str | Failure | None
) -> Iterable[Finding]:
    if said is None or result is None:
        return
    ours = _value_of(result)
    theirs = said if isinstance(said, Failure) else json.loads(said)
    if isinstance(ours, Failure) and isinstance(theirs, Failure):
        return
    if isinstance(ours, Failure) or isinstance(theirs, Failure):
        difference = f"{_shown(ours)}, {_shown(theirs)}"
    elif ours == theirs:
        return
    else:
        path, mine, other = first_difference(ours, theirs)
        difference = f"{_shown(mine)}, {_shown(other)}, at {path}"
    who = "the untouched files" if engine == "rjsonnet" else f"the engine {engine}"
    yield Finding(
        "error", f"the worker and {who} disagree about the sample ({case.label}): {difference}."
    )


def _value_of(result: Result) -> Any:
    match result:
        case Rendered(body):
            return json.loads(body)
        case Asserted(message):
            return Failure(message, asserted=True)
        case TemplateFailed(message):
            return Failure(message)
        case _:
            assert_never(result)


def _shown(value: object) -> str:
    if isinstance(value, Failure):
        return f"an error ({value.message})"
    return json.dumps(value, default=str)[:80]


_ABSENT: Final = object()


def first_difference(ours: Any, theirs: Any, path: str = "") -> tuple[str, Any, Any]:
    """Return where two JSON values differ first, and what stands there; "nothing" for absence."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            mine, other = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
            if mine != other:
                return first_difference(mine, other, f"{path}.{key}" if path else key)
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if mine != other:
                return first_difference(mine, other, f"{path}[{index}]")
    mine, other = ("nothing" if value is _ABSENT else value for value in (ours, theirs))
    return path or "the top", mine, other
