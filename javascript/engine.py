"""A template in JavaScript, rendered by QuickJS: many events in one call, each within limits.

QuickJS starts no threads and keeps no clock, and it has no network, files or modules. It ends a
call that takes too much processor time or memory, so that only the event that did so fails.
`runtime.js` sees to it that no event leaves anything to the next.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from segrelay.javascript.source import without_comments
from segrelay.jsonnet.files import Bundle, SourceFile, shown
from segrelay.jsonnet.rendered import (
    Asserted,
    Engine,
    Rendered,
    Result,
    Row,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.jsonnet.renderer import MAX_BODY_BYTES, without_data

INSTALL: Final = "pip install 'segrelay[js]'"
"""The command that installs the engine."""
EVENT_SECONDS: Final = 0.1
"""The processor seconds of one event; one with 1 MB takes 4 ms.

A group of 50 events, each of which goes on for ever, stays within a drain's limit for a group.
"""
LOAD_SECONDS: Final = 1.0
"""The processor seconds for loading a template, which runs the code outside its function."""
MEMORY_BYTES: Final = 64_000_000
"""The memory of a template and its event, in bytes."""
STACK_BYTES: Final = 512_000
"""The stack of a template, in bytes: some thousand calls deep."""
MOST_ROUNDS: Final = 20
"""The most times that one event is rendered.

A template that calls a helper which Python computes, such as a digest, is rendered once more with
the answer.
"""

_FIRST_LINE: Final = 10_000
"""The line number of a template's first line.

QuickJS knows no files: an error with a smaller number is in our own code.
"""
_BEFORE: Final = "\n" * (_FIRST_LINE - 1) + "segrelaySeal(function () {\n"
_BEHIND: Final = "\n;return typeof template === 'undefined' ? null : template; })"
_SEPARATOR: Final = "\x1e"
_NOTHING: Final = "\x1d"
_ASKED: Final = "\x1c"
_FRAME: Final = re.compile(r"^ +at (?:.*\()?<input>:(\d+):(\d+)\)?$", re.MULTILINE)
_STACK: Final = re.compile(r"\n {4}at .*\Z|\nundefined\Z", re.DOTALL)
_ENDED: Final = re.compile(r"InternalError\b|null\Z")
"""The beginning of the errors after which a context is not used again: no time or no memory."""
_LONE: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""The escape of a lone surrogate; QuickJS writes no other `\\u` of this kind."""
_WORD: Final = re.compile(r"\w+")
_SAYS: Final = frozenset(
    _WORD.findall(
        """
        Error TypeError ReferenceError RangeError SyntaxError InternalError URIError EvalError
        cannot read set property properties of undefined null is not defined a function an object
        iterable circular reference BigInt are forbidden in JSON stringify Maximum call stack size
        exceeded out memory interrupted no constructor must be called with new invalid value number
        string boolean symbol to convert from array length date this event has time and there other
        clock the template returned what promise it async defined global that can t removed missing
        sha256 sha1 hmacSha256 toPhoneE164 read only unexpected token regular expression group
        prototype changed authConfGet getOAuth2AccessToken nothing give gets secrets put them into
        authorization destination NaN Infinity integer repeat count initialized constructors invoked
        digits operand right side instanceof malformed percent encoding expecting extensible URI
        sequence char class index Function
        """
    )
)
"""The words of QuickJS' own messages, and of ours."""
_TOO_MUCH: Final = f"it takes more than {MEMORY_BYTES // 1_000_000} MB of memory"
_LIMITS: Final = {
    "interrupted": "it takes too much time",
    "out of memory": _TOO_MUCH,
    "null": _TOO_MUCH,
}
"""The meaning of the errors by which QuickJS ends a call; `null` = no memory for an error."""
_ASKS_ON: Final = f"it needs more than {MOST_ROUNDS} digests that depend on one another"
NOTHING_RETURNED: Final = "the template returned nothing"
"""The message of an event that is skipped."""
_REPLACEMENT: Final = rb"\1\\ufffd"
_MODULE: Final = re.compile(
    r"^[ \t]*(?:import|export|await)\b|\brequire\(|\bmodule\.exports\b", re.MULTILINE
)
_JSONNET: Final = re.compile(r"^\s*local\s+\w+\s*=|lytemplates\.libsonnet", re.MULTILINE)


def _digest(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, _bytes(text), usedforsecurity=False).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")


def _signed(message: str, key: str) -> str:
    return hmac.new(_bytes(key), _bytes(message), "sha256").hexdigest()


def _in_e164(phone: str, region: str) -> str:
    import phonenumbers  # noqa: PLC0415 - 0.1 s, for templates that use it

    try:
        number = phonenumbers.parse(phone, region.upper())
    except phonenumbers.NumberParseException:
        return "+" + "".join(filter(str.isdigit, phone))
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


ANSWERS: Final[Mapping[str, Callable[..., str]]] = {
    "sha1": _digest("sha1"),
    "sha256": _digest("sha256"),
    "hmacSha256": _signed,
    "toPhoneE164": _in_e164,
}
"""The functions of Python that helpers use, by name."""


class ScriptFailed(NamedTuple):
    """An error that QuickJS reports.

    Attributes:
        message: The message with the kind of error: `TypeError: cannot read property 'x' of null`.
        line: The number of the line in the template, from 1; 0 where it is not known.
        is_ended: True if the call ran out of time or memory.
    """

    message: str
    line: int = 0
    column: int = 0
    is_ended: bool = False


def _read_error(error: Exception) -> ScriptFailed:
    text = str(error.args[0])
    places = ((int(line), int(column)) for line, column in _FRAME.findall(text))
    line, column = next((each for each in places if each[0] > _FIRST_LINE), (_FIRST_LINE, 0))
    message = _STACK.sub("", text).strip()
    is_ended = _ENDED.match(message) is not None
    for said, meant in _LIMITS.items():
        message = meant if said in message and is_ended else message
    return ScriptFailed(message, line - _FIRST_LINE, column, is_ended)


def _broken(name: str, text: str, failed: ScriptFailed) -> TemplateBroken:
    place = f"{name}:{failed.line}:{failed.column}" if failed.line else name
    message = f"{place}: {failed.message}."
    if _JSONNET.search(text):
        message += (
            " This looks like Jsonnet; its files end in .jsonnet, those of JavaScript in .js."
        )
    elif _MODULE.search(text):
        message += " Modules are not supported: a template is one file without import or await."
    return TemplateBroken(message, name, failed.line, failed.column)


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8").strip().removesuffix(";")


def _quickjs(file: str) -> Any:
    """Return the engine's module.

    Raises:
        TemplateBroken: It is not installed.
    """
    try:
        import quickjs  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TemplateBroken(
            f"{file}: is JavaScript, and QuickJS, which renders it, is not installed: {INSTALL}",
            file,
        ) from error
    return quickjs


class _Context:
    """A context of QuickJS in which one template is loaded.

    Raises:
        TemplateBroken: The template does not load.
    """

    def __init__(self, file: SourceFile) -> None:
        name = shown(file.name)
        context = self._context = _limited(name)
        self.runs = 0
        functions = ("segrelayRun", "segrelayTaken", "segrelayAsked")
        self._run, self._taken, self._asked = map(context.get, functions)
        try:
            is_there = context.eval(_BEFORE + file.text + _BEHIND)
        except _quickjs(name).JSException as error:
            raise _broken(name, file.text, _read_error(error)) from error
        if not is_there:
            message = (
                f"{name}: defines no function `template`: write function template(data) {{…}}."
            )
            raise TemplateBroken(message, name)
        context.set_time_limit(EVENT_SECONDS)

    def run(
        self, rows: Sequence[Row], settings: str, answers: str
    ) -> tuple[Sequence[str], ScriptFailed | None]:
        """Render rows until one fails; return their bodies, and the failure of that one, if any."""
        self.runs += 1
        profiles = _SEPARATOR.join([_decoded(row.profile) for row in rows])
        times = _SEPARATOR.join([str(row.time_us // 1000) for row in rows])
        try:
            return self._run(profiles, settings, times, answers).split(_SEPARATOR), None
        except _quickjs("").JSException as error:
            failed = _read_error(error)
        if failed.is_ended:
            return (), failed
        taken = self._taken()
        return taken.split(_SEPARATOR) if taken else (), failed

    def has_jobs(self) -> bool:
        """Say whether promises of events wait in the context, which hold memory."""
        try:
            return bool(self._context.execute_pending_job())
        except _quickjs("").JSException:
            return True

    def questions(self) -> list[tuple[str, list[str]]]:
        """Return the calls of the last run that Python has to compute, such as digests.

        Each is a key, and its parts: the name of the helper, then the arguments.
        """
        asked: list[tuple[str, list[str]]] = json.loads(self._asked())
        return asked


def _decoded(profile: bytes) -> str:
    """Return the text of a profile; a separator in it, where JSON allows none, stays forbidden."""
    return profile.decode(errors="replace").replace(_SEPARATOR, "\0")


def _limited(name: str) -> Any:
    """Return a context with limits, and with the helpers of templates."""
    context = _quickjs(name).Context()
    context.set_memory_limit(MEMORY_BYTES)
    context.set_max_stack_size(STACK_BYTES)
    context.set_time_limit(LOAD_SECONDS)
    context.eval(_script("runtime.js"))
    context.eval(f"segrelayInstall({_script('lytemplates.js')})")
    return context


def why_unparsed(text: str, name: str = "") -> ScriptFailed | None:
    """Return the syntax error of a template's own text, which is not evaluated; None = it parses.

    Raises:
        TemplateBroken: QuickJS is not installed.
    """
    context = _limited(name)
    try:
        context.eval("throw '';" + "\n" * _FIRST_LINE + text)
    except _quickjs(name).JSException as error:
        failed = _read_error(error)
        return failed if failed.message.startswith("SyntaxError") else None
    return None


def load(bundle: Bundle) -> JavaScriptTemplate:
    """Load the template of a bundle.

    Raises:
        TemplateBroken: It does not load, or QuickJS is not installed.
    """
    return JavaScriptTemplate(bundle)


class JavaScriptTemplate:
    """A loaded template; it implements `segrelay.jsonnet.renderer.LoadedTemplate`.

    Raises:
        TemplateBroken: It does not load, or QuickJS is not installed.
    """

    differences = 0
    """Always 0: there is no compiled form that could differ from an engine."""

    def __init__(self, bundle: Bundle) -> None:
        self._file = bundle.files[bundle.root]
        self._name = shown(self._file.name)
        self._own = threading.local()
        if "\0" in self._file.text:
            raise TemplateBroken(f"{self._name}: holds a zero byte, and is no text.", self._name)
        if wrong := why_unparsed(self._file.text, self._name):
            raise _broken(self._name, self._file.text, wrong)
        _Context(self._file)

    def distrust(self, differences: int) -> None:
        """Do nothing: there is no compiled form."""

    def render_safely(self, row: Row, engine: Engine) -> Rendered | None:
        """Render an event; None if it does not simply render."""
        [result] = self.render([row], engine)
        return result if isinstance(result, Rendered) else None

    def render(self, rows: Sequence[Row], engine: Engine = "auto") -> list[Result]:
        """Render events, those with the same settings in one call."""
        del engine
        texts = {id(row.settings): orjson.dumps(dict(row.settings)).decode() for row in rows}
        results: dict[int, Result] = {}
        answers: dict[str, str] = {}
        waiting = list(range(len(rows)))
        for _ in range(MOST_ROUNDS):
            for settings, group in groupby(waiting, lambda at: texts[id(rows[at].settings)]):
                part = list(group)
                came_out = self._rendered([rows[at] for at in part], settings, answers)
                results |= {
                    at: self._result(each)
                    for at, each in zip(part, came_out, strict=True)
                    if each != _ASKED
                }
            waiting = [at for at in waiting if at not in results]
            if not waiting:
                break
        results |= dict.fromkeys(waiting, TemplateFailed(_ASKS_ON, "", 0))
        return [results[at] for at in range(len(rows))]

    def _rendered(
        self, rows: Sequence[Row], settings: str, answers: dict[str, str]
    ) -> Iterator[str | ScriptFailed]:
        """Yield the body or failure of each row, and add the answers to calls of helpers.

        After a failure the rest is rendered in another call. A call that ran out of time or memory
        is repeated row by row, each within limits of its own: none pays for what others left.
        """
        while rows:
            context = self._context()
            came_out, failed = context.run(rows, settings, json.dumps(list(answers.items())))
            if failed is not None and failed.is_ended:
                self._own.context = None
                if len(rows) > 1 or context.runs > 1:
                    for row in rows:
                        yield from self._rendered([row], settings, answers)
                    return
            else:
                answers |= {key: _answer(*asked) for key, asked in context.questions()}
                if context.has_jobs():
                    self._own.context = None
            yield from came_out
            if failed is not None:
                yield failed
            rows = rows[len(came_out) + (failed is not None) :]

    def _context(self) -> _Context:
        """Return the context of this thread, in which nobody else may be."""
        process = os.getpid()
        if getattr(self._own, "process", 0) != process or self._own.context is None:
            self._own.context = _Context(self._file)
            self._own.process = process
        context: _Context = self._own.context
        return context

    def _result(self, came_out: str | ScriptFailed) -> Result:
        if isinstance(came_out, ScriptFailed):
            message = came_out.message
            if not came_out.is_ended:
                message = without_data(message, self._words)
            return TemplateFailed(message, self._name if came_out.line else "", came_out.line)
        if came_out == _NOTHING:
            return Asserted(NOTHING_RETURNED)
        body = came_out.encode()
        if b"\\u" in body:
            body = _LONE.sub(_REPLACEMENT, body)
        if len(body) > MAX_BODY_BYTES:
            return TemplateFailed(f"the body has more than {MAX_BODY_BYTES} bytes", "", 0)
        return Rendered(body)

    @cached_property
    def _words(self) -> frozenset[str]:
        """The words that a message may say: those of the template's code, and of the engine."""
        return _SAYS.union(_WORD.findall(without_comments(self._file.text)))


def _answer(name: str, *texts: str) -> str:
    return ANSWERS[name](*texts)
