"""One call of rjsonnet for many events.

A call costs 200 µs before its first event, so events share it; results leave one by one through a
native callback, so that after an error their number says which event failed, and the next call goes
on behind it. Of a large profile the template gets only the fields that templates have asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

os.environ.setdefault("RUST_BACKTRACE", "0")  # a panic should not print its stack

import rjsonnet

from worker.adapters import jsonnet_errors
from worker.adapters.jsonnet_errors import Failure
from worker.adapters.jsonnet_rewrite import RJSONNET_STD, Rewritten
from worker.adapters.template_files import LIBRARY_FOLDER

LARGE_PROFILE_BYTES: Final = 3_000
"""About 100 fields: from here on cutting a profile costs less than handing it over."""
MAX_KNOWN_FIELDS: Final = 1_000
"""A template that makes field names up must not grow the set for ever."""
MAX_STACK: Final = 500
"""rjsonnet's own default; from some 5,000 on endless recursion is a segmentation fault."""
_INNER: Final = ("library.libsonnet", RJSONNET_STD)
_DRIVER: Final = """
local template = import %(root)s;
local pull = std.native('pull');
local emit = std.native('emit');
local library = (import 'lib:/library.libsonnet')(std.parseJson(std.native('settings')()));
%(more)s
[
  local row = std.parseJson(pull(i));
  emit(std.manifestJsonMinified(template(library(row, %(argument)s))))
  for i in std.range(%(first)d, %(last)d)
]
"""
_MORE: Final = """
local known = std.parseJson(std.native('known')());
local more = std.native('more');
"""
_MORE_ARGUMENT: Final = "function(field) if field in known then null else more(i, field)"

Natives = dict[str, tuple[tuple[str, ...], Callable[..., Any]]]
_F = TypeVar("_F", bound=Callable[..., Any])


def sha1(text: str) -> str:
    """Return the hex digest: a native of the library."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def sha256(text: str) -> str:
    """Return the hex digest: a native of the library."""
    return hashlib.sha256(text.encode()).hexdigest()


HASHES: Final[Natives] = {"sha1": (("text",), sha1), "sha256": (("text",), sha256)}


def inner_sources() -> dict[str, str]:
    """Return the library's own files, which no template imports by name."""
    return {f"lib:/{name}": (LIBRARY_FOLDER / name).read_text("utf-8") for name in _INNER}


class BatchEvaluator:
    """Evaluates one rewritten template for groups of events.

    Args:
        rewritten: The template.
        resolve: Names of imports by the importer's folder and the path it wrote.
        inner: From `inner_sources`.
    """

    def __init__(
        self,
        rewritten: Rewritten,
        resolve: Mapping[tuple[str, str], str],
        inner: Mapping[str, str],
    ) -> None:
        self._rewritten = rewritten
        self._resolve = resolve
        self._sources = {**inner, **rewritten.sources}
        self._known: set[str] = {"segment_events"}
        self._is_warm = False

    def evaluate(
        self, profiles: Sequence[bytes], settings: bytes, group_size: int
    ) -> list[str | Failure]:
        """Return a result for each profile, in order.

        Args:
            profiles: JSON texts.
            settings: JSON text of an object.
            group_size: At most so many events share a call.
        """
        results: list[str | Failure] = []
        while len(results) < len(profiles):
            group = profiles[len(results) : len(results) + group_size]
            are_large = max(map(len, group)) > LARGE_PROFILE_BYTES
            if are_large and not self._is_warm:
                group = group[:1]
            results.extend(_Group(self, group, settings, cut=are_large).run())
            self._is_warm = self._is_warm or are_large
        return results

    def call(self, code: str, natives: Natives) -> None:
        """Evaluate code that may import the template."""
        rjsonnet.evaluate_snippet(
            "/main",
            code,
            max_stack=MAX_STACK,
            import_callback=self._import,
            native_callbacks={**natives, **HASHES},
        )

    def driver(self, first: int, last: int, *, cut: bool) -> str:
        """Return the code that renders the profiles from first to last."""
        return _DRIVER % {
            "root": _code_string(self._rewritten.root),
            "more": _MORE if cut else "",
            "argument": _MORE_ARGUMENT if cut else "null",
            "first": first,
            "last": last,
        }

    def failure(self, text: str) -> Failure:
        """Read an error text of the engine."""
        return jsonnet_errors.read(text, self._rewritten.headed)

    @property
    def known(self) -> set[str]:
        """The fields that the template has asked for so far."""
        return self._known

    def _import(self, folder: str, path: str) -> tuple[str, str]:
        name = self._resolve.get((folder.rstrip("/"), path), path)
        return name, self._sources[name]


class _Group:
    """Events that share a call, and the calls that go on behind those that fail."""

    def __init__(
        self, evaluator: BatchEvaluator, profiles: Sequence[bytes], settings: bytes, *, cut: bool
    ) -> None:
        self._evaluator = evaluator
        self._profiles = profiles
        self._settings = settings.decode()
        self._cut = cut
        self._fields: dict[int, dict[str, Any]] = {}
        self._results: list[str | Failure] = []
        self._interrupted: BaseException | None = None
        self._natives: Natives = {
            "pull": (("i",), self._guarded(self._pull_cut if cut else self._pull)),
            "emit": (("text",), self._guarded(self._emit)),
            "settings": ((), lambda: self._settings),
            "known": ((), self._known),
            "more": (("i", "field"), self._guarded(self._more)),
        }

    def run(self) -> list[str | Failure]:
        while len(self._results) < len(self._profiles):
            first, last = len(self._results), len(self._profiles) - 1
            failure = self._failure_of(self._evaluator.driver(first, last, cut=self._cut))
            if failure is not None:
                self._results.append(failure)
        return self._results

    def _failure_of(self, code: str) -> Failure | None:
        try:
            self._evaluator.call(code, self._natives)
        except RuntimeError as error:
            self._raise_if_interrupted()
            return self._evaluator.failure(str(error))
        except BaseException as error:
            self._raise_if_interrupted()
            if type(error).__name__ != "PanicException":  # it is no Exception, and not importable
                raise
            return Failure("the engine gave up (a Rust panic)")
        return None

    def _guarded(self, native: _F) -> Callable[..., Any]:
        """Keep what is not the event's fault (a signal's exception) from becoming its failure."""

        def guarded(*arguments: Any) -> Any:
            try:
                return native(*arguments)
            except ValueError:
                raise
            except BaseException as error:
                self._interrupted = error
                raise

        return guarded

    def _raise_if_interrupted(self) -> None:
        if self._interrupted is not None:
            raise self._interrupted

    def _pull(self, i: float) -> str:
        return self._profiles[int(i)].decode()

    def _pull_cut(self, i: float) -> str:
        text = self._profiles[int(i)]
        if len(text) <= LARGE_PROFILE_BYTES:
            return text.decode()
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text.decode()  # the engine says what is wrong with it
        if not isinstance(fields, dict):
            return text.decode()
        self._fields = {int(i): fields}
        known = self._evaluator.known
        return orjson.dumps({f: fields[f] for f in known if f in fields}).decode()

    def _more(self, i: float, field: Any) -> str | None:
        fields = self._fields.get(int(i))
        if fields is None or not isinstance(field, str):
            return None
        known = self._evaluator.known
        if len(known) < MAX_KNOWN_FIELDS:
            known.add(field)
        return orjson.dumps(fields[field]).decode() if field in fields else None

    def _known(self) -> str:
        return orjson.dumps(dict.fromkeys(self._evaluator.known, 1)).decode()

    def _emit(self, text: str) -> None:
        self._results.append(text if _is_json(text) else Failure(_NOT_JSON))


_NOT_JSON: Final = "the template yields a number that JSON does not have (inf or nan)"


def _is_json(text: str) -> bool:
    """Return whether it is: the engine prints `inf` and `nan`; any other text it makes is JSON."""
    if "inf" not in text and "nan" not in text:
        return True
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _code_string(text: str) -> str:
    return "@'" + text.replace("'", "''") + "'"
