"""The engine that renders a template: the fastest one that is right about it.

rjsonnet is wrong about some of the language. What it does wrong in `std` is corrected
(`std/std-for-rjsonnet.libsonnet`); a template that uses the rest is rendered by the reference
implementation `jsonnet`, or where that is not installed by `gojsonnet`.
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
from segrelay.jsonnet.files import Bundle, SourceFile, resolutions, shown
from segrelay.jsonnet.rendered import Rendered, TemplateBroken
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tokens import Token, TokenKind, indent_of, location
from segrelay.jsonnet.syntax.tree import room, walk

_OURS: Final = "lib:/"
"""The prefix of the library's files; whoever hands it in proves that engines agree on them."""
_FRACTION_CODE: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*[\d*.]*[hlL]?[eEfFgG]")
"""Codes that rjsonnet gets wrong: `"%.1f" % 0.95` is 0.10 there, and `"%e" % -1` does not end."""
_COMMENT_END: Final = "\\*/"
"""The end of a comment that is none for rjsonnet: it goes on to the next one."""
_EQUALITIES: Final = frozenset({"==", "!="})
_ARITHMETIC: Final = frozenset({"+", "-", "*", "/", "%"})
_MAKES_FRACTIONS: Final = frozenset({"-", "*", "/"})
_WHOLE_CALLS: Final = frozenset({"length", "type"})
_FIRST_EXACT: Final = 2
"""The least number that rjsonnet never confuses with another: it overlooks under 2.2e-16."""


def engine_for(bundle: Bundle) -> EngineModule:
    """Return the engine that renders a template."""
    return right_engine() if is_beyond_rjsonnet(bundle) else "rjsonnet"


def right_engine() -> EngineModule:
    """Return the engine for templates that rjsonnet gets wrong; rjsonnet if there is no other."""
    return next(iter(judges()), "rjsonnet")


def is_beyond_rjsonnet(bundle: Bundle) -> bool:
    """Say whether a template uses something that rjsonnet is known to evaluate wrongly."""
    return any(
        _COMMENT_END in file.text or _is_beyond(file.tokens, file.parsed)
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
    has_fractions = any(map(_makes_fractions, nodes))
    return any(_is_misread(node, has_fractions=has_fractions) for node in nodes)


def _is_misread_block(text: str) -> bool:
    """Say whether rjsonnet misreads a text block: `|||-`, or blanks before its end.

    It takes only the beginning of the block's indent for such blanks.
    """
    if text.startswith("|||-"):
        return True
    indent, end = indent_of(text), text[text.rindex("\n") + 1 : -len("|||")]
    return not indent.startswith(end)


def _makes_fractions(node: tree.Node) -> bool:
    match node:
        case tree.Number(_, text):
            return not text.isdigit()
        case tree.Binary(_, operator):
            return operator in _MAKES_FRACTIONS
        case _:
            return False


def _is_misread(node: tree.Node, *, has_fractions: bool) -> bool:
    match node:
        case tree.Slice(_, _, start, end):
            # It refuses bounds that count from the end.
            return not all(part is None or isinstance(part, tree.Number) for part in (start, end))
        case tree.Index(_, tree.Name(_, "std"), tree.Constant(_, "thisFile")):
            return True
        case tree.Index(_, _, tree.Unary(_, "-") | tree.Binary(_, "-")):
            # It takes -1 for 0, where the specification has an error.
            return True
        case tree.Binary(_, "%", tree.Constant(_, str(text)), _):
            return _prints_fractions(text)
        case tree.Call(
            _,
            tree.Index(_, tree.Name(_, "std"), tree.Constant(_, "format" | "mod")),
            (tree.Constant(_, str(text)), *_),
        ):
            return _prints_fractions(text)
        case tree.Binary(_, operator, left, right) if operator in _EQUALITIES:
            # It takes numbers for equal that differ by less than 2.2e-16.
            if _is_arithmetic(left) or _is_arithmetic(right):
                return not (_is_far(left) or _is_far(right))
            return has_fractions and not (_is_whole(left) or _is_whole(right))
        case _:
            return False


def _prints_fractions(text: str) -> bool:
    """Say whether a format has a code that rjsonnet rounds wrongly, or never ends on."""
    return _FRACTION_CODE.search(text) is not None


def _is_whole(node: tree.Node) -> bool:
    """Say whether an expression surely gives no fraction."""
    match node:
        case tree.Constant():
            return True
        case tree.Number(_, text):
            return text.isdigit()
        case tree.Call(_, tree.Index(_, tree.Name(_, "std"), tree.Constant(_, name))):
            return name in _WHOLE_CALLS
        case _:
            return False


def _is_far(node: tree.Node) -> bool:
    """Say whether an expression is a whole number that rjsonnet compares correctly."""
    if not _is_whole(node):
        return False
    return not isinstance(node, tree.Number) or int(node.text) >= _FIRST_EXACT


def _is_arithmetic(node: tree.Node) -> bool:
    match node:
        case tree.Binary(_, operator, left, right):
            are_numbers = not any(isinstance(each, tree.Constant) for each in (left, right))
            return operator in _ARITHMETIC and are_numbers
        case _:
            return False


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
    """The engines of one template; the one that is right about it renders.

    Raises:
        TemplateBroken: The engine does not parse it.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
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
        return [Rendered(each.encode()) if isinstance(each, str) else each for each in said]

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
        [said] = judge(self.name, self._bundle, [event.profile], event.settings, seconds=_SECONDS)
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
