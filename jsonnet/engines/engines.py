"""The engines of a template, and whose answer counts.

What counts is an answer of the reference implementation `jsonnet`, or where that is not installed
of `gojsonnet`. Their calls take 60 ms, and a failure ends a call. So rjsonnet, which takes 0.2 ms,
is asked first: where it fails, the event fails. It has values where the others fail (it repeats a
text that is multiplied, and iterates maps), so none of its values is sent.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Final

import rjsonnet

from segrelay.jsonnet.engines import failures as jsonnet_errors
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import EngineModule, judge, judges
from segrelay.jsonnet.engines.rows_evaluator import (
    REFERENCE_LACKS,
    REFERENCE_STD,
    Input,
    RowsEvaluator,
    is_json,
    rewrite,
)
from segrelay.jsonnet.files import Bundle, resolutions, shown
from segrelay.jsonnet.rendered import Rendered
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tokens import Token, TokenKind, indent_of, location
from segrelay.jsonnet.syntax.tree import room, walk

_OURS: Final = "lib:/"
"""The prefix of the library's files; whoever hands it in proves that engines agree on them."""
_FRACTION_CODE: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*[\d*.]*[hlL]?[eEfFgG]")
"""Codes that rjsonnet gets wrong: `"%.1f" % 0.95` is 0.10 there, and `"%e" % -1` does not end."""
_COMMENT_END: Final = "\\*/"
"""The end of a comment that is none for rjsonnet: it goes on to the next one."""
_LONG_NUMBER: Final = re.compile(rb"[:,\[]\s*-?(?:[\d.]{16}|[\d.]+[eE])")
"""A number whose last digit rjsonnet may change: it reads 99.99999999999999 as 100."""


def is_beyond_rjsonnet(bundle: Bundle) -> bool:
    """Say whether rjsonnet may fail, or never end, where the other engines have a value."""
    return any(
        _COMMENT_END in file.text or _is_beyond(file.tokens, file.parsed) or not _parses(file.text)
        for file in bundle.files.values()
        if file.parsed is not None and not file.name.startswith(_OURS)
    )


def _is_beyond(tokens: Sequence[Token], root: tree.Node) -> bool:
    if any(
        (token.kind is TokenKind.NUMBER and "_" in token.text)
        or (token.kind is TokenKind.BLOCK and _is_misread_block(token.text))
        for token in tokens
    ):
        return True
    with room():
        nodes = list(walk(root))
    return any(map(_is_misread, nodes))


def _is_misread_block(text: str) -> bool:
    """Say whether rjsonnet misreads a text block: `|||-`, or blanks before its end.

    It takes only the beginning of the block's indent for such blanks.
    """
    if text.startswith("|||-"):
        return True
    indent, end = indent_of(text), text[text.rindex("\n") + 1 : -len("|||")]
    return not indent.startswith(end)


def _is_misread(node: tree.Node) -> bool:
    match node:
        case tree.Slice(_, _, start, end):
            # It refuses bounds that count from the end.
            return not all(part is None or isinstance(part, tree.Number) for part in (start, end))
        case tree.Index(_, tree.Name(_, "std"), tree.Constant(_, "thisFile")):
            return True
        case tree.Binary(_, "%", tree.Constant(_, str(text)), _):
            return _prints_fractions(text)
        case tree.Call(
            _,
            tree.Index(_, tree.Name(_, "std"), tree.Constant(_, "format" | "mod")),
            (tree.Constant(_, str(text)), *_),
        ):
            return _prints_fractions(text)
        case _:
            return False


def _prints_fractions(text: str) -> bool:
    """Say whether a format has a code that rjsonnet rounds wrongly, or never ends on."""
    return _FRACTION_CODE.search(text) is not None


EngineAnswer = Rendered | Failure
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
    """The engines of one template."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.name: EngineModule = judges()[0] if is_beyond_rjsonnet(bundle) else "rjsonnet"
        """The engine that compiled answers are compared with, and that is asked first."""

    def evaluate(self, events: Sequence[Input], *, compares: bool = False) -> list[EngineAnswer]:
        """Render events; return the answers in their order.

        Args:
            events: The profiles, with the settings.
            compares: True if the answers are only compared, so that they may be those of rjsonnet.
        """
        quick: dict[int, str | Failure] = {}
        if self.name == "rjsonnet":
            fit = [at for at, event in enumerate(events) if not _LONG_NUMBER.search(event.profile)]
            said = self._rjsonnet.evaluate([events[at] for at in fit], _GROUP)
            quick = {
                at: answer
                for at, answer in zip(fit, said, strict=True)
                if compares or (isinstance(answer, Failure) and not answer.asserted)
            }
        rest = [at for at in range(len(events)) if at not in quick]
        asked = [events[at] for at in rest]
        if judges()[0] == "jsonnet":
            sure = self._by_reference(asked)
        else:
            sure = list(map(self._apart, asked))
        answers = quick | dict(zip(rest, sure, strict=True))
        return [
            Rendered(answer.encode()) if isinstance(answer, str) else answer
            for _, answer in sorted(answers.items(), key=lambda each: each[0])
        ]

    def others(self, event: Input) -> Iterator[EngineAnswer]:
        """Yield the answers of the other engines to an event, each from a process of its own."""
        for engine in judges():
            if engine != self.name:
                [said] = judge(
                    engine, self._bundle, [event.profile], event.settings, seconds=_SECONDS
                )
                if said is not None:
                    yield Rendered(said.encode()) if isinstance(said, str) else self._marked(said)

    def distrust(self) -> None:
        """Ask rjsonnet no more, because it was found to be wrong."""
        self.name = judges()[0]

    def _by_reference(self, events: Sequence[Input]) -> list[str | Failure]:
        """Render with the reference implementation, which crashes on invalid JSON such as 1e999."""
        fit = [at for at, event in enumerate(events) if is_json(event.profile)]
        said = self._jsonnet.evaluate([events[at] for at in fit], _GROUP)
        values = (each[1:-1] if isinstance(each, str) else each for each in said)
        answers: dict[int, str | Failure] = dict(zip(fit, values, strict=True))
        return [answers.get(at, _NO_JSON) for at in range(len(events))]

    @cached_property
    def _rjsonnet(self) -> RowsEvaluator:
        return RowsEvaluator(rewrite(self._bundle), resolutions(self._bundle), self._bundle.library)

    @cached_property
    def _jsonnet(self) -> RowsEvaluator:
        rewritten = rewrite(self._bundle, REFERENCE_STD, REFERENCE_LACKS)
        snippets = importlib.import_module("_jsonnet").evaluate_snippet
        return RowsEvaluator(
            rewritten,
            resolutions(self._bundle),
            self._bundle.library,
            reads_failure=lambda text, headed: self._marked(jsonnet_errors.read(text, headed)),
            snippets=snippets,
            printed=_AS_TEXT,
        )

    def _apart(self, event: Input) -> str | Failure:
        """Render an event in another process: go-jsonnet must not be imported before a fork."""
        [said] = judge("gojsonnet", self._bundle, [event.profile], event.settings, seconds=_SECONDS)
        return self._marked(said) if isinstance(said, Failure) else said or _NOBODY

    def _marked(self, failure: Failure) -> Failure:
        """Mark a failure as a failed assert if its place is that of an assert."""
        location = (failure.file, failure.line, failure.column)
        is_assert = location in self._asserts or failure.message == jsonnet_errors.OBJECT_ASSERT
        return jsonnet_errors.as_assert(failure) if is_assert else failure

    @cached_property
    def _asserts(self) -> frozenset[tuple[str, int, int]]:
        with room():
            return frozenset(
                (shown(file.name), *location(file.text, at))
                for file in self._bundle.files.values()
                if file.parsed is not None
                for at in _locations_of_asserts(file.parsed)
            )


def _locations_of_asserts(root: tree.Node) -> Iterator[int]:
    """Yield the offsets at which engines report a failed assert: its word, or its message."""
    for node in walk(root):
        match node:
            case tree.Assert(at):
                yield at
            case tree.Object(_, _, _, checks):
                for check in checks:
                    yield check.at
                    if check.message is not None:
                        yield check.message.at


_NOT_EVALUATED: Final = "if true then null else\n"
"""Text before a file that makes the engine parse the rest without evaluating it."""
_FILES_KEPT: Final = 64
"""The number of files remembered as parsed; templates share the library's files."""


@lru_cache(_FILES_KEPT)
def _parses(text: str) -> bool:
    """Say whether rjsonnet parses a file."""
    try:
        rjsonnet.evaluate_snippet("templates:/probe", _NOT_EVALUATED + text)
    except RuntimeError:
        return False
    return True
