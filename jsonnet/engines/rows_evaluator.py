"""Rendering of many events in one call of rjsonnet or of the reference implementation.

A file is evaluated once a call, so an import of the event's file could mean only one event. Each
file that needs it, directly or through another, becomes a function of it:

    local event = import "event.libsonnet";     function(_0) local _1 = …;
    local h = import "h.libsonnet";          →  local event = _0                       ;
    h.body(event)                               local h = _1                   ;
                                                h.body(event)

(`_1` is bound in the first line to the rewritten helper.) Imports are replaced by names padded to
the same width, so columns stay; the first line is ours, so one is subtracted from line numbers.

A call costs 200 µs before its first event, so events share it; results leave one by one through a
native callback, so that after an error their number says which event failed, and the next call goes
on behind it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import count
from typing import Final, NamedTuple

import orjson

os.environ.setdefault("RUST_BACKTRACE", "0")  # a panic should not print its stack

import rjsonnet

from segrelay.jsonnet.engines import failures as jsonnet_errors
from segrelay.jsonnet.engines.failures import HASHES, MAX_STACK, Failure, Natives
from segrelay.jsonnet.files import Bundle, Library, SourceFile
from segrelay.jsonnet.syntax.tokens import TokenKind
from segrelay.jsonnet.syntax.tree import Import

TEMPLATES_STD: Final = "std-for-templates.libsonnet"
"""The file that hides our native functions from templates, and the output of `std.trace`."""
_HIDDEN: Final = frozenset({"native", "trace"})
_STD: Final = re.compile(r"std(?!\w)(?:\.([A-Za-z_]\w*))?", re.ASCII)
"""The uses of `std` in a text, with the name of the function where it stands right behind it.

Not by tokens, because an engine may see a token where another one sees a comment or a string.
"""
RJSONNET_STD: Final = "std-for-rjsonnet.libsonnet"
"""The file that completes and corrects the `std` of rjsonnet 0.5.6."""
RJSONNET_LACKS: Final = frozenset(
    {
        *("atan2", "deg2rad", "escapeStringJson", "flattenDeepArray", "foldl", "foldr", "hypot"),
        *("isNull", "isOdd", "log10", "log2", "manifestJson", "manifestJsonEx"),
        *("manifestJsonMinified", "mantissa", "objectRemoveKey", "pi", "rad2deg", "slice"),
        *("escapeStringPython", "setInter", "setMember", "split", "splitLimit", "trim", "uniq"),
    }
)
"""The functions of `std` that rjsonnet lacks or gets wrong; a file with one gets `RJSONNET_STD`."""
REFERENCE_STD: Final = "std-for-jsonnet.libsonnet"
"""The file that adds functions of go-jsonnet to the `std` of the reference implementation."""
REFERENCE_LACKS: Final = frozenset(
    {
        *("manifestJson", "manifestJsonEx", "manifestJsonMinified"),
        *("sha1", "sha256", "sha3", "sha512", "trim"),
    }
)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A bundle whose root is a function of the library.

    Args:
        headed: The names of files that begin with a line of ours: their line numbers are one too
            high.
    """

    root: str
    sources: Mapping[str, str]
    headed: frozenset[str]


def rewrite(
    bundle: Bundle, std_file: str = RJSONNET_STD, lacks: frozenset[str] = RJSONNET_LACKS
) -> Rewritten:
    """Make the root, and every file that needs the library, a function of the library."""
    needing = _needing_library(bundle) | {bundle.root}
    return _headed(
        bundle,
        std_file,
        lacks,
        {name: _as_function(bundle.files[name], bundle.library, needing) for name in needing},
    )


def untouched(bundle: Bundle, std_file: str, lacks: frozenset[str]) -> Rewritten:
    """Return the files unchanged, except for a first line that replaces the engine's `std`."""
    return _headed(bundle, std_file, lacks, {})


def _headed(
    bundle: Bundle, std_file: str, lacks: frozenset[str], functions: Mapping[str, tuple[str, str]]
) -> Rewritten:
    """Put the first lines before the files of a bundle, some of which are functions."""
    sources: dict[str, str] = {}
    headed: set[str] = set()
    for name, file in bundle.files.items():
        head, text = functions.get(name, ("", file.text))
        head += std_head(file, bundle.library, std_file, lacks)
        sources[name] = f"{head}\n{text}" if head else text
        if head:
            headed.add(name)
    return Rewritten(bundle.root, sources, frozenset(headed))


def std_head(file: SourceFile, library: Library, std_file: str, lacks: frozenset[str]) -> str:
    """Return the code that replaces `std` in a file; "" where the engine's own does.

    That is where all uses of `std` name a function, and none that the engine lacks or that is
    hidden from templates.
    """
    if not file.is_code or file.name in (*library.inner_sources, library.name):
        return ""
    names = _STD.findall(file.text)
    if all(name and name not in lacks and name not in _HIDDEN for name in names):
        return ""
    return f"local std = import 'lib:/{std_file}';"


def _needing_library(bundle: Bundle) -> set[str]:
    needing: set[str] = set()
    library = bundle.library.name
    while True:
        grown = {
            name
            for name, file in bundle.files.items()
            if name != library
            and any(
                target == library or target in needing
                for found, target in file.imports
                if found.word == "import"
            )
        }
        if grown == needing:
            return needing
        needing = grown


def _as_function(file: SourceFile, library: Library, needing: set[str]) -> tuple[str, str]:
    taken = {token.text for token in file.tokens if token.kind is TokenKind.WORD}
    names = (name for number in count() if (name := f"_{number}") not in taken)
    event = next(names)
    bound: dict[str, str] = {library.name: event}
    head = f"function({event}) "
    text = file.text
    for found, target in reversed(file.imports):
        if found.word != "import" or not (target == library.name or target in needing):
            continue
        if target not in bound:
            bound[target] = next(names)
            head += f"local {bound[target]} = (import {quoted(target)})({event}); "
        text = _replaced(text, found, bound[target])
    return head, text


def _replaced(text: str, found: Import, name: str) -> str:
    """Replace an import by a name that is padded to the same width and line breaks."""
    old = text[found.at : found.end]
    kept = "".join(character if character in "\r\n" else " " for character in old[len(name) :])
    return text[: found.at] + name + kept + text[found.end :]


def quoted(target: str) -> str:
    """Return a text as a string of Jsonnet."""
    return "@'" + target.replace("'", "''") + "'"


_DRIVER: Final = """
local template = import %(root)s;
local pull = std.native('pull');
local emit = std.native('emit');
local libraries = [
  (import %(inner)s)(std.parseJson(text))
  for text in std.parseJson(std.native('settings')())
];
local of = std.native('of');
[
  local row = std.parseJson(pull(i));
  local made = template(libraries[of(i)](row));
  emit(%(printed)s(if std.isFunction(made) then made() else made))
  for i in std.range(%(first)d, %(last)d)
]
"""
_IN_A_NATIVE: Final = "error invoking native extension"
_NOT_JSON: Final = "the template yields a number that JSON does not have (inf or nan)"


class Input(NamedTuple):
    """A profile and the settings of its trigger, as JSON texts."""

    profile: bytes
    settings: bytes


class RowsEvaluator:
    """The evaluator of one rewritten template for groups of events.

    Args:
        rewritten: The template.
        resolve: The names of imports, by the importer's folder and the path that it wrote.
        library: The library of the template.
        reads_failure: A function that reads an error text of the engine; it is given the files that
            are headed.
        snippets: The engine's own function that evaluates a snippet of code.
        printed: The code of a function that makes a text of a value.
    """

    def __init__(
        self,
        rewritten: Rewritten,
        resolve: Mapping[tuple[str, str], str],
        library: Library,
        *,
        reads_failure: Callable[[str, AbstractSet[str]], Failure] = jsonnet_errors.read,
        snippets: Callable[..., str] = rjsonnet.evaluate_snippet,
        printed: str = "std.manifestJsonMinified",
    ) -> None:
        self._printed = printed
        self._reads_failure = reads_failure
        self._snippets = snippets
        self._rewritten = rewritten
        self._resolve = resolve
        self._sources = {**library.inner_sources, **rewritten.sources}
        self._inner = f"lib:/{library.inner_file}"

    def evaluate(self, events: Sequence[Input], group_size: int) -> list[str | Failure]:
        """Return a result for each event, in order; at most `group_size` events share a call."""
        results: list[str | Failure] = []
        while len(results) < len(events):
            group = events[len(results) : len(results) + group_size]
            results.extend(_RowGroup(self, group).run())
        return results

    def call(self, code: str, natives: Natives) -> None:
        """Evaluate code that may import the template."""
        self._snippets(
            "/main",
            code,
            max_stack=MAX_STACK,
            import_callback=self._import,
            native_callbacks={**natives, **HASHES},
        )

    def driver(self, first: int, last: int) -> str:
        """Return the code that renders the profiles from first to last."""
        return _DRIVER % {
            "root": quoted(self._rewritten.root),
            "inner": quoted(self._inner),
            "printed": self._printed,
            "first": first,
            "last": last,
        }

    def failure(self, text: str) -> Failure:
        return self._reads_failure(text, self._rewritten.headed)

    def _import(self, folder: str, path: str) -> tuple[str, str | bytes]:
        name = self._resolve.get((folder.rstrip("/"), path), path)
        source = self._sources[name]
        return name, source if self._snippets is rjsonnet.evaluate_snippet else source.encode()


class _RowGroup:
    """Events that share a call; after an event that fails, another call renders those behind it.

    `pull`, `of` and `emit` run no Python code: a signal's handler then runs between calls, where
    what it raises goes its own way, and not in a callback, where the engine would make it an
    event's error.
    """

    def __init__(self, evaluator: RowsEvaluator, events: Sequence[Input]) -> None:
        self._evaluator = evaluator
        different = list(dict.fromkeys(event.settings for event in events))
        self._settings = orjson.dumps([text.decode() for text in different]).decode()
        self._of = {i: different.index(event.settings) for i, event in enumerate(events)}
        self._rows = {i: _text(event.profile) for i, event in enumerate(events)}

    def run(self) -> list[str | Failure]:
        results: list[str | Failure] = []
        repeated = -1
        while len(results) < len(self._rows):
            first = len(results)
            failure = self._failure_of(first, results)
            at = len(results)
            if failure is not None and _IN_A_NATIVE in failure.message and at != repeated:
                repeated = at  # it may have been a signal's exception: not the event's fault
            elif failure is not None:
                results.append(failure)
        return [checked(result) for result in results]

    def _failure_of(self, first: int, results: list[str | Failure]) -> Failure | None:
        code = self._evaluator.driver(first, len(self._rows) - 1)
        natives: Natives = {
            "pull": (("i",), self._rows.__getitem__),  # a float finds its integer
            "emit": (("text",), results.append),
            "settings": ((), lambda: self._settings),
            "of": (("i",), self._of.__getitem__),
        }
        try:
            self._evaluator.call(code, natives)
        except RuntimeError as error:
            return self._evaluator.failure(str(error))
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # it is no Exception, and not importable
                raise
            return Failure("the engine gave up (a Rust panic)")
        return None


def _text(profile: bytes) -> str:
    """Return the text of a profile; "" where it is no UTF-8, which no engine reads."""
    try:
        return profile.decode()
    except UnicodeDecodeError:
        return ""


def checked(result: str | Failure) -> str | Failure:
    """Return a value unchanged if it is JSON, else a failure: the engine prints `inf` and `NaN`."""
    if isinstance(result, Failure):
        return result
    is_plain = "inf" not in result and "nan" not in result and "NaN" not in result
    return result if is_plain or is_json(result) else Failure(_NOT_JSON)


def is_json(text: str | bytes) -> bool:
    """Say whether a text is JSON."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
