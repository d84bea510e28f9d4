"""Renders events with the user's Jsonnet templates, many in one evaluation.

The renderer never raises for an event: what fails is an answer like any other. What kills the
process (a template that refers to itself, one that asks for more memory than there is) can't be
stopped here: `isolated_renderer` does the same in a process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from worker.adapters import jsonnet_judge, jsonnet_syntax
from worker.adapters.jsonnet_batch import BatchEvaluator, inner_sources
from worker.adapters.jsonnet_errors import Failure
from worker.adapters.jsonnet_rewrite import rewrite
from worker.adapters.template_files import Bundle, TemplateFolder, resolutions
from worker.adapters.template_words import words_of
from worker.core.messages import without_data
from worker.errors import Bug

_GROUP: Final = 50
"""Events that share a call. A call costs 200 µs; beyond 100 events the engine's collector costs
more, and the interpreter lock is held all the time: a lease's renewal would wait."""
_PLACES_KEPT: Final = 1_000
_PLACES_A_CALL: Final = 3
"""How many unplaced errors one call looks up: each costs a process of 0.1 s."""
_PLACE_SECONDS: Final = 2.0
_VARYING: Final = re.compile(r"\"[^\"]*\"|'[^']*'|\d+")


@dataclass(frozen=True, slots=True)
class Row:
    """One event to render.

    Args:
        profile: JSON object of the profile, with exactly one entry in `segment_events`.
    """

    profile: bytes

    def __repr__(self) -> str:
        return f"Row({len(self.profile)} bytes)"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The template's value.

    Args:
        body: Minified JSON: an object, or a string where the template yields a URL.
    """

    body: bytes

    def __repr__(self) -> str:
        return f"Rendered({len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class Asserted:
    """An `assert` of the template failed: the event is to be skipped.

    Args:
        message: What the assert says, without what it says of the event.
    """

    message: str


@dataclass(frozen=True, slots=True)
class TemplateFailed:
    """The template failed for this event.

    Args:
        message: The engine's, one line, without what it says of the event.
        file: As a person would write it; "" where no engine names a place.
        line: 1-based; 0 where no engine names a place.
    """

    message: str
    file: str
    line: int


Result = Rendered | Asserted | TemplateFailed


@dataclass(frozen=True, slots=True)
class Template:
    """A template that loads.

    Args:
        name: Relative to the templates folder.
        content_hash: Over its source and everything that it imports; 12 hex digits.
    """

    name: str
    content_hash: str


class Renderer:
    """Loads and renders the templates of one folder.

    Args:
        templates_folder: The configured folder. The shipped `lib/` is always importable.
    """

    def __init__(self, templates_folder: Path) -> None:
        self._folder = TemplateFolder(templates_folder)
        self._inner = inner_sources()
        self._loaded: dict[Template, _Loaded] = {}

    def load(self, name: str) -> Template:
        """Read a template and what it imports; from then on changes to the files have no effect.

        Raises:
            TemplateBroken: Missing, not parsable, or it reaches outside of the folder.
        """
        bundle = self._folder.bundle(name)
        template = Template(name, bundle.content_hash)
        if template not in self._loaded:
            jsonnet_syntax.check(bundle)
            evaluator = BatchEvaluator(rewrite(bundle), resolutions(bundle), self._inner)
            self._loaded[template] = _Loaded(bundle, evaluator, {}, words_of(bundle))
        return template

    def render(
        self, template: Template, rows: Sequence[Row], settings: Mapping[str, Any]
    ) -> list[Result]:
        """Render events; the results have the rows' order and number.

        Args:
            template: From this renderer's `load`.
            rows: The events.
            settings: The trigger's settings, for the template's `jobConfGet`.
        """
        loaded = self._loaded.get(template)
        if loaded is None:
            raise Bug(f"Template {template.name} was not loaded by this renderer.")
        if not rows:
            return []
        profiles = [row.profile for row in rows]
        settings_text = orjson.dumps(dict(settings))
        answers = loaded.evaluator.evaluate(profiles, settings_text, _GROUP)
        places = _Places(loaded, settings_text)
        return [
            Rendered(answer.encode()) if isinstance(answer, str) else places.result(answer, profile)
            for answer, profile in zip(answers, profiles, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Loaded:
    bundle: Bundle
    evaluator: BatchEvaluator
    places: dict[str, tuple[str, int] | None]
    """File and line for kinds of messages that rjsonnet gives without; None if nobody knows."""
    words: frozenset[str]

    def said(self, failure: Failure) -> str:
        """Return the message, which is data: a template may say whatever it knows of a person."""
        return without_data(failure.message, self.words)


class _Places:
    """Finds the place of failures that have none of their own, a few a call, and remembers it."""

    def __init__(self, loaded: _Loaded, settings: bytes) -> None:
        self._loaded = loaded
        self._settings = settings
        self._left = _PLACES_A_CALL

    def result(self, failure: Failure, profile: bytes) -> Result:
        if failure.asserted:
            return Asserted(self._loaded.said(failure))
        place = (failure.file, failure.line)
        if not failure.line or failure.is_call_site:
            place = self._looked_up(failure, profile) or place
        return TemplateFailed(self._loaded.said(failure), *place)

    def _looked_up(self, failure: Failure, profile: bytes) -> tuple[str, int] | None:
        places = self._loaded.places
        kind = f"{failure.file}:{failure.line}: {_VARYING.sub('…', failure.message)}"
        if kind not in places and self._left and len(places) < _PLACES_KEPT:
            self._left -= 1
            places[kind] = self._asked(profile)
        return places.get(kind)

    def _asked(self, profile: bytes) -> tuple[str, int] | None:
        engine = next(iter(jsonnet_judge.judges()), None)
        if engine is None:
            return None
        [judged] = jsonnet_judge.judge(
            engine, self._loaded.bundle, [profile], self._settings, seconds=_PLACE_SECONDS
        )
        is_placed = isinstance(judged, Failure) and judged.line
        return (judged.file, judged.line) if isinstance(judged, Failure) and is_placed else None
