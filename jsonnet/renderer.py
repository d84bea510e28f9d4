"""Rendering of events with templates, many events in one evaluation.

A template is Jsonnet, or written in one of the languages that the library of templates names.

The renderer never raises for an event: what fails is an answer like any other. What kills the
process (a template that refers to itself, one that asks for more memory than there is) can't be
stopped here: `isolated` does the same in a process of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

import orjson

from segrelay.jsonnet.accelerated import (
    COSTLY,
    Accelerator,
    CompiledAnswer,
    can_be_compared,
    is_same,
)
from segrelay.jsonnet.compiled import NotCompiled, compile_template
from segrelay.jsonnet.engines import judge as jsonnet_judge
from segrelay.jsonnet.engines.engines import TemplateEngines
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.rows_evaluator import Input
from segrelay.jsonnet.files import Bundle, Library, TemplateFolder, shown
from segrelay.jsonnet.rendered import (
    Asserted,
    Engine,
    Rendered,
    Result,
    Row,
    Template,
    TemplateFailed,
)
from segrelay.jsonnet.syntax.tokens import TokenKind

MAX_BODY_BYTES: Final = 5_000_000
"""The largest body of one event, in bytes."""
_LOCATIONS_KEPT: Final = 1_000
"""The number of kinds of messages of a template whose place is remembered, to bound memory."""
_LOCATIONS_A_CALL: Final = 3
"""The number of errors whose place one call looks up: each starts a process, which takes 0.1 s."""
_LOCATION_SECONDS: Final = 2.0
"""The seconds that looking up the place of one error may take."""
_LOCATION_TRIES: Final = 3
"""The most tries to look up the place of one kind of error."""
_VARYING: Final = re.compile(r"\"[^\"]*\"|'[^']*'|\d+")


class Renderer:
    """Loads and renders the templates of one folder.

    Args:
        templates_folder: The folder that holds the templates.
        library: The files that all templates may import.
        compiles: True if templates are compiled to Python, too; else only the engine renders.
    """

    def __init__(self, templates_folder: Path, library: Library, *, compiles: bool = True) -> None:
        self._folder = TemplateFolder(templates_folder, library)
        self._compiles = compiles
        self._loaded: dict[Template, LoadedTemplate] = {}
        self._bundles: dict[Template, Bundle] = {}

    def load(self, name: str) -> Template:
        """Read a template and what it imports; from then on changes to the files have no effect.

        Raises:
            TemplateBroken: Missing, not parsable, or it reaches outside of the folder.
        """
        return self.take_in(name, self._folder.bundle(name))

    def take_in(self, name: str, bundle: Bundle) -> Template:
        """Load a bundle that was read before, whatever the files hold by now.

        Raises:
            TemplateBroken: The engine does not parse it.
        """
        template = Template(name, bundle.content_hash)
        if template not in self._loaded:
            self._loaded[template] = load(name, bundle, compiles=self._compiles)
            self._bundles[template] = bundle
        return template

    def bundle_of(self, template: Template) -> Bundle:
        """Return the files of a loaded template."""
        return self._bundles[template]

    @property
    def doubted(self) -> dict[str, int]:
        """Return how often the compiled form of each template differed from the engine."""
        return {
            template.name: loaded.differences
            for template, loaded in self._loaded.items()
            if loaded.differences
        }

    def doubts(self, template: Template) -> bool:
        """Say whether the compiled form of a template has differed from the engine."""
        return self._loaded[template].differences > 0

    def distrust(self, differences: Mapping[str, int]) -> None:
        """Turn off the compiled forms that differed from the engine in another process."""
        for template, loaded in self._loaded.items():
            loaded.distrust(differences.get(template.name, 0))

    def render(
        self,
        template: Template,
        rows: Sequence[Row],
        engine: Engine = "auto",
    ) -> list[Result]:
        """Render events; the results have the rows' order and number.

        Args:
            template: The template, as `load` of this renderer has returned it.
            rows: The events, of whichever triggers.
            engine: `auto` uses the compiled form where there is one that is trusted; `jsonnet` only
                the engine of record.
        """
        loaded = self._loaded.get(template)
        if loaded is None:
            raise ValueError(f"Template {template.name} was not loaded by this renderer.")
        return loaded.render(rows, engine) if rows else []

    def render_safely(
        self, template: Template, row: Row, engine: Engine = "auto"
    ) -> Rendered | None:
        """Render an event that can't harm this process; None for what only `render` can tell."""
        return self._loaded[template].render_safely(row, engine)


class LoadedTemplate(Protocol):
    """A template that is ready to render, in whichever language."""

    @property
    def differences(self) -> int:
        """The number of times that its compiled form differed from the engine."""

    def distrust(self, differences: int) -> None:
        """Turn off the compiled form if it differed in another process."""

    def render(self, rows: Sequence[Row], engine: Engine) -> list[Result]:
        """Render events; one result each, in order."""

    def render_safely(self, row: Row, engine: Engine) -> Rendered | None:
        """See `Renderer.render_safely`."""


def load(name: str, bundle: Bundle, *, compiles: bool) -> LoadedTemplate:
    """Load a template by the language that it is written in.

    Raises:
        TemplateBroken: It does not load.
    """
    if bundle.parts:
        return _Combined(bundle, compiles=compiles)
    if bundle.language:
        loaded: LoadedTemplate = import_module(bundle.language.module).load(bundle)
        return loaded
    return _JsonnetTemplate.of(name, bundle, compiles=compiles)


class _Combined:
    """Templates, of any languages, whose results are the fields of one object."""

    def __init__(self, bundle: Bundle, *, compiles: bool) -> None:
        self._fields: dict[str, LoadedTemplate] = {}
        for field_name, part in bundle.parts.items():
            is_file = isinstance(part, str)
            inner = bundle.part(part) if is_file else replace(bundle, parts=part)
            name = shown(part) if is_file else field_name
            self._fields[field_name] = load(name, inner, compiles=compiles)

    @property
    def differences(self) -> int:
        return sum(each.differences for each in self._fields.values())

    def distrust(self, differences: int) -> None:
        for each in self._fields.values():
            each.distrust(differences)

    def render(self, rows: Sequence[Row], engine: Engine) -> list[Result]:
        of_fields = [each.render(rows, engine) for each in self._fields.values()]
        return [self._joined(values) for values in zip(*of_fields, strict=True)]

    def render_safely(self, row: Row, engine: Engine) -> Rendered | None:
        values = [each.render_safely(row, engine) for each in self._fields.values()]
        joined = self._joined(values) if all(values) else None
        return joined if isinstance(joined, Rendered) else None

    def _joined(self, values: Sequence[Result | None]) -> Result:
        """Return an object of the fields' values, or the first that is none."""
        bodies = []
        for name, value in zip(self._fields, values, strict=True):
            if not isinstance(value, Rendered):
                assert value is not None
                return value
            bodies.append(orjson.dumps(name) + b":" + value.body)
        return _sized(Rendered(b"{" + b",".join(bodies) + b"}"))


def _texts(rows: Sequence[Row]) -> dict[int, bytes]:
    """Return settings as JSON, by the identity of their mapping."""
    settings = {id(row.settings): row.settings for row in rows}
    return {key: orjson.dumps(dict(given)) for key, given in settings.items()}


def _input(row: Row, texts: Mapping[int, bytes]) -> Input:
    return Input(row.profile, texts[id(row.settings)])


def _sized(answer: Rendered) -> Result:
    if len(answer.body) <= MAX_BODY_BYTES:
        return answer
    return TemplateFailed(f"the body has more than {MAX_BODY_BYTES} bytes", "", 0)


@dataclass(frozen=True)
class _JsonnetTemplate:
    """A template in Jsonnet with everything that renders it."""

    bundle: Bundle
    engines: TemplateEngines
    accelerator: Accelerator
    locations: dict[str, tuple[str, int] | None] = field(default_factory=dict)
    """The place of a failure, by kind of message, as the reference engine says; None = unknown."""
    tries: Counter[str] = field(default_factory=Counter)
    """The questions to that engine, by kind of message: a busy machine may not answer in time."""

    @classmethod
    def of(cls, name: str, bundle: Bundle, *, compiles: bool) -> _JsonnetTemplate:
        """Load a bundle, and compile it."""
        engines = TemplateEngines(bundle)
        form = compile_template(bundle) if compiles else NotCompiled("it was not to be compiled")
        accelerator = Accelerator(name, form)
        accelerator.compare_with(engines.name)
        loaded = cls(bundle, engines, accelerator)
        loaded.try_both()
        return loaded

    def try_both(self) -> None:
        """Compare the compiled form with the engine on the library's samples, before any event."""
        accelerator = self.accelerator
        if not accelerator.is_trusted:
            return
        answers = [(each, accelerator.answer(each, {})) for each in self.bundle.library.samples()]
        compared = [(Input(each, b"{}"), ours) for each, ours in answers if can_be_compared(ours)]
        said = self.engines.evaluate([event for event, _ in compared], compares=True)
        for (event, ours), theirs in zip(compared, said, strict=True):
            if accelerator.is_trusted and ours is not None:
                self.compared(ours, theirs, event)

    @property
    def differences(self) -> int:
        return self.accelerator.differences

    def distrust(self, differences: int) -> None:
        self.accelerator.differences = max(self.accelerator.differences, differences)

    def render(self, rows: Sequence[Row], engine: Engine) -> list[Result]:
        texts = _texts(rows)
        if engine == "auto" and self.accelerator.is_trusted:
            answers = self.accelerated(rows, texts)
        else:
            answers = self.engines.evaluate([_input(row, texts) for row in rows])
        locations = _Locations(self)
        return [
            _sized(answer)
            if isinstance(answer, Rendered)
            else locations.result(answer, _input(row, texts))
            for answer, row in zip(answers, rows, strict=True)
        ]

    def render_safely(self, row: Row, engine: Engine) -> Rendered | None:
        """Render an event by the compiled form, and the engine only what that has rendered."""
        accelerator = self.accelerator
        if engine != "auto" or not accelerator.is_trusted:
            return None
        answer = accelerator.answer(row.profile, row.settings)
        if not isinstance(answer, Rendered) or len(answer.body) > MAX_BODY_BYTES:
            return None
        settings = _texts([row])[id(row.settings)]
        if accelerator.is_due(settings):
            event = Input(row.profile, settings)
            [theirs] = self.engines.evaluate([event], compares=True)
            answer = self.compared(answer, theirs, event)
        if not isinstance(answer, Rendered):
            return None
        return answer

    def compared(
        self, ours: CompiledAnswer, theirs: CompiledAnswer, event: Input
    ) -> CompiledAnswer:
        """Return the answer that counts, of the compiled form and the engine.

        Where they differ the other engines decide. If they say what the compiled form says, the
        engine is wrong about this template, and another one renders it from now on.
        """
        if is_same(ours, theirs):
            return theirs
        others = list(self.engines.others(event))
        if others and all(is_same(ours, other) for other in others):
            self.engines.distrust()
            self.accelerator.compare_with(self.engines.name)
            return ours
        self.accelerator.differ()
        return self.engines.evaluate([event])[0]

    def accelerated(self, rows: Sequence[Row], texts: Mapping[int, bytes]) -> list[CompiledAnswer]:
        """Render events by the compiled form, and by the engine where it has no answer.

        Those that are due are given to both. Where they differ the engine is asked about all that
        the compiled form has answered in this call.
        """
        accelerator = self.accelerator
        answer_of, is_due = accelerator.answer, accelerator.is_due
        answers = [answer_of(row.profile, row.settings) for row in rows]
        events = [_input(row, texts) for row in rows]
        due = [
            at
            for at, answer in enumerate(answers)
            if can_be_compared(answer) and is_due(events[at].settings)
        ]
        said = self.engines.evaluate([events[at] for at in due], compares=True) if due else []
        for at, theirs in zip(due, said, strict=True):
            ours = answers[at]
            if ours is not None and accelerator.is_trusted:
                answers[at] = self.compared(ours, theirs, events[at])
        asked = [
            at
            for at, answer in enumerate(answers)
            if answer is None or (not accelerator.is_trusted and can_be_compared(answer))
        ]
        said = self.engines.evaluate([events[at] for at in asked]) if asked else []
        sure = dict(zip(asked, said, strict=True))
        return [
            sure[at] if answer is None or at in sure else answer
            for at, answer in enumerate(answers)
        ]

    def said(self, failure: Failure) -> str:
        """Return the message without data: a template may say whatever it knows of a person."""
        return without_data(failure.message, self._words)

    @cached_property
    def _words(self) -> frozenset[str]:
        return words_of(self.bundle)


class _Locations:
    """Looks up the file and line of failures, a few kinds a call, and remembers them.

    The reference implementation says them, in every command and in the worker: rjsonnet often names
    none, or that of a call or of a variable's use.
    """

    def __init__(self, loaded: _JsonnetTemplate) -> None:
        self._loaded = loaded
        self._left = _LOCATIONS_A_CALL

    def result(self, failure: Failure, event: Input) -> Result:
        if failure.asserted:
            return Asserted(self._loaded.said(failure))
        location = (failure.file, failure.line)
        if failure.message not in COSTLY:
            location = self._looked_up(failure, event) or location
        return TemplateFailed(self._loaded.said(failure), *location)

    def _looked_up(self, failure: Failure, event: Input) -> tuple[str, int] | None:
        locations = self._loaded.locations
        kind = f"{failure.file}:{failure.line}: {_VARYING.sub('…', failure.message)}"
        may_ask = self._left and len(locations) < _LOCATIONS_KEPT
        if may_ask and not locations.get(kind) and self._loaded.tries[kind] < _LOCATION_TRIES:
            self._left -= 1
            self._loaded.tries[kind] += 1
            locations[kind] = self._asked(event)
        return locations.get(kind)

    def _asked(self, event: Input) -> tuple[str, int] | None:
        for engine in jsonnet_judge.judges()[:1]:
            bundle, profiles = self._loaded.bundle, [event.profile]
            [judged] = jsonnet_judge.judge(
                engine, bundle, profiles, event.settings, seconds=_LOCATION_SECONDS
            )
            if isinstance(judged, Failure) and judged.line:
                return judged.file, judged.line
        return None


MAX_SHOWN: Final = 200
"""The characters of a message that are kept: enough for one sentence."""
_WORD: Final = re.compile(r"\w+")
_MOST_READ: Final = 1_000
"""The characters of a message that are read: a pattern may look at each from each one before it."""
_EMAIL: Final = re.compile(r"[^\s\"'<>(),;:@]++@[^\s\"'<>(),;:]+")
_TAG: Final = re.compile(r"(?!<email>)<[^<>]*>")
_EMAIL_OR_WORD: Final = re.compile(r"<email>|\w+")
_SPACE: Final = re.compile(r"\s+")
_HIDDEN: Final = "…"
_HIDDEN_RUN: Final = re.compile(rf"{_HIDDEN}(?:[^\w<>]*{_HIDDEN})+")
_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SPEAKING: Final = frozenset(
    {TokenKind.STRING, TokenKind.VERBATIM, TokenKind.BLOCK, TokenKind.WORD}
)

_ENGINE: Final = frozenset(
    _WORD.findall(
        """
        assert assertion failed runtime static error syntax type mismatch expected got found
        no such field fields does not exist missing property local variable is not defined
        duplicate name array string bounds out of is not within index indexed to with by fractional
        value values only functions can be called function has too many args arguments argument
        parameter already bound passed not enough operator binary operation does not operate on
        implemented cannot cant can t manifest couldn unexpected null number object boolean true
        false attempted attempt divide division by zero stack overflow max frames exceeded try to
        reduce recursion or set bigger infinite detected format truncated code unrecognized
        conversion mapping keys required subfield both should be of the same one the this in at
        an and for a from while parse parsing json JSON invalid unicode codepoint base integer
        decimal hex octal digit character characters char std join parseInt parseJson top level
        usable inside super self loop iterate over arrays objects length must positive negative
        non empty empty key keys overflow range element elements endless evaluation takes many steps
        loop large memory
        """
    )
)
"""The words of the engines' own messages; between them, engines quote values of the event."""


def words_of(bundle: Bundle) -> frozenset[str]:
    """Return the words of a template's own strings and names, and those of the engines.

    Comments are no part of it: nothing of them is ever said.
    """
    return _ENGINE.union(*map(_WORD.findall, _spoken(bundle)))


def without_data(text: str, words: AbstractSet[str]) -> str:
    """Return a message as one line in which every word that is not known is hidden.

    A template's message may quote whatever the template knows of a person.
    """
    shown = "".join(each if each.isprintable() else " " for each in text[:_MOST_READ])
    shown = _EMAIL.sub("<email>", shown)
    shown = _EMAIL_OR_WORD.sub(lambda found: _known(found[0], words), shown)
    shown = _TAG.sub(" ", _HIDDEN_RUN.sub(_HIDDEN, shown))
    return _SPACE.sub(" ", shown).strip()[:MAX_SHOWN]


def _known(word: str, words: AbstractSet[str]) -> str:
    return word if word in words or word.startswith("<") else _HIDDEN


def _spoken(bundle: Bundle) -> Iterator[str]:
    for file in bundle.files.values():
        for token in file.tokens:
            if token.kind in _SPEAKING:
                yield _ESCAPE.sub(" ", token.text)
