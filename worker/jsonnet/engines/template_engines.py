"""The engine that renders one template, and the engines that are asked when it is in doubt."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Final

import rjsonnet

from worker.errors import TemplateBroken
from worker.jsonnet.engines import failures as jsonnet_errors
from worker.jsonnet.engines.choice import engine_for, right_engine
from worker.jsonnet.engines.failures import Failure
from worker.jsonnet.engines.judge import EngineModule, judge, judges
from worker.jsonnet.engines.rewrite import REFERENCE_LACKS, REFERENCE_STD, rewrite
from worker.jsonnet.engines.rows_evaluator import Input, RowsEvaluator, is_json
from worker.jsonnet.files import Bundle, SourceFile, resolutions, shown
from worker.jsonnet.syntax import tree
from worker.jsonnet.syntax.room import room
from worker.jsonnet.syntax.scopes import walk
from worker.jsonnet.syntax.tokens import place

EngineAnswer = bytes | Failure
_GROUP: Final = 50
"""The most events that share a call. A call costs 200 µs; beyond 100 events the engine's collector
costs more, and the interpreter lock is held all the time: a lease's renewal would wait."""
_SECONDS: Final = 5.0
"""The seconds that one event may take in a process of its own, enough on a busy machine."""
_NOBODY: Final = Failure("no engine renders this event")
_AS_TEXT: Final = "(function(value) std.toString([value]))"
"""The code that prints a value in the reference implementation; the brackets are taken off again.

Its `manifestJsonMinified` is written in Jsonnet and takes ten times as long.
"""
_NO_JSON: Final = Failure("failed to parse json")


class TemplateEngines:
    """The engines of one template; the one that is right about it renders.

    Raises:
        TemplateBroken: The engine does not parse it.
    """

    def __init__(self, bundle: Bundle, inner: Mapping[str, str]) -> None:
        self._bundle = bundle
        self._inner = inner
        self.name: EngineModule = engine_for(bundle)
        if self.name == "rjsonnet":
            refuse_unparsed(bundle)

    def evaluate(self, events: Sequence[Input]) -> list[EngineAnswer]:
        """Render events with the engine; return the answers in their order."""
        match self.name:
            case "rjsonnet":
                said: Sequence[str | Failure] = self._rjsonnet.evaluate(events, _GROUP)
            case "jsonnet":
                said = self._by_reference(events)
            case "gojsonnet":
                said = list(map(self._apart, events))
        return [each.encode() if isinstance(each, str) else each for each in said]

    def others(self, event: Input) -> Iterator[EngineAnswer]:
        """Yield the answers of the other engines to an event, each from a process of its own."""
        for engine in judges():
            if engine != self.name:
                [said] = judge(
                    engine, self._bundle, [event.profile], event.settings, seconds=_SECONDS
                )
                if said is not None:
                    yield said.encode() if isinstance(said, str) else self._marked(said)

    def distrust(self) -> None:
        """Render with another engine from now on, because rjsonnet was found to be wrong."""
        if self.name == "rjsonnet":
            self.name = right_engine()

    def _by_reference(self, events: Sequence[Input]) -> list[str | Failure]:
        """Render with the reference implementation, which crashes on invalid JSON such as 1e999."""
        fit = [at for at, event in enumerate(events) if is_json(event.profile)]
        said = self._jsonnet.evaluate([events[at] for at in fit], _GROUP)
        values = (each[1:-1] if isinstance(each, str) else each for each in said)
        answers: dict[int, str | Failure] = dict(zip(fit, values, strict=True))
        return [answers.get(at, _NO_JSON) for at in range(len(events))]

    @cached_property
    def _rjsonnet(self) -> RowsEvaluator:
        return RowsEvaluator(rewrite(self._bundle), resolutions(self._bundle), self._inner)

    @cached_property
    def _jsonnet(self) -> RowsEvaluator:
        rewritten = rewrite(self._bundle, REFERENCE_STD, REFERENCE_LACKS)
        snippets = importlib.import_module("_jsonnet").evaluate_snippet
        return RowsEvaluator(
            rewritten,
            resolutions(self._bundle),
            self._inner,
            reads_failure=lambda text, headed: self._marked(jsonnet_errors.read(text, headed)),
            snippets=snippets,
            printed=_AS_TEXT,
        )

    def _apart(self, event: Input) -> str | Failure:
        """Render an event in another process: go-jsonnet must not be imported before a fork."""
        [said] = judge(self.name, self._bundle, [event.profile], event.settings, seconds=_SECONDS)
        return self._marked(said) if isinstance(said, Failure) else said or _NOBODY

    def _marked(self, failure: Failure) -> Failure:
        """Mark a failure as a failed assert if its place is that of an assert."""
        is_assert = (failure.file, failure.line, failure.column) in self._asserts
        return replace(failure, asserted=True) if is_assert else failure

    @cached_property
    def _asserts(self) -> frozenset[tuple[str, int, int]]:
        with room():
            return frozenset(
                (shown(file.name), *place(file.text, at))
                for file in self._bundle.files.values()
                if file.parsed is not None
                for at in _places_of_asserts(file.parsed)
            )


def _places_of_asserts(root: tree.Node) -> Iterator[int]:
    """Yield the offsets at which engines report a failed assert: its word, or its message."""
    for node in walk(root):
        match node:
            case tree.Assert(at):
                yield at
            case tree.Object(_, _, _, checks):
                for check in checks:
                    yield check.at if check.message is None else check.message.at


_NOT_EVALUATED: Final = "if true then null else\n"
"""Text before a file that makes the engine parse the rest without evaluating it."""
_PROBE: Final = "templates:/probe"
_FILES_KEPT: Final = 64
"""The number of files remembered as parsed; templates share the library's files."""


def refuse_unparsed(bundle: Bundle) -> None:
    """Parse the files of a bundle with the engine.

    Raises:
        TemplateBroken: One does not parse.
    """
    for file in bundle.files.values():
        if file.is_code:
            _check_file(file)


def _check_file(file: SourceFile) -> None:
    try:
        _parse(file.text)
    except RuntimeError as error:
        # It puts the place of a syntax error in an indented line.
        failure = jsonnet_errors.read(str(error), frozenset({_PROBE}))
        name = shown(file.name)
        where = f"{name}:{failure.line}:{failure.column}" if failure.line else name
        message = f"{where}: the engine does not parse this: {failure.message}"
        raise TemplateBroken(message, name, failure.line, failure.column) from error


@lru_cache(_FILES_KEPT)
def _parse(text: str) -> None:
    rjsonnet.evaluate_snippet(_PROBE, _NOT_EVALUATED + text)
