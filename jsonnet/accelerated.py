"""The decision whether the compiled form of a template may answer in the place of an engine.

The compiled form answers what it is sure of; the rest goes to the engine. The first event with each
trigger's settings (when a worker starts, that is the trigger's sample), and then four of 4,000, are
rendered by both. If they differ, the other engines are asked. Unless all of them agree with the
compiled form, the engine's value counts, and the compiled form is turned off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from segrelay.jsonnet.compiled import (
    AssertFailed,
    Compiled,
    Doubtful,
    Exhausted,
    NotCompiled,
    compile_template,
)
from segrelay.jsonnet.compiled.running.limits import TOO_LARGE, TOO_LONG
from segrelay.jsonnet.engines.failures import MAX_MESSAGE, Failure, is_same_assert
from segrelay.jsonnet.engines.judge import EngineModule
from segrelay.jsonnet.files import Bundle, shown
from segrelay.jsonnet.rendered import Rendered

"""The number of recent events of each template for which a process remembers engine use."""
BOTH_EVERY: Final = 4_000
"""The number of events of which `BOTH_TOGETHER` are rendered by the compiled form and the engine.

Often enough to find a difference within minutes; it is 1 % of a drain's work.
"""
BOTH_TOGETHER: Final = 4
"""The events in a row that both render, in one call, which costs as much as 20 events."""
BOTH_EVERY_SLOW: Final = 200_000
"""`BOTH_EVERY` for engines other than rjsonnet, which take 50 ms for a call."""
COSTLY: Final = frozenset({TOO_LARGE, TOO_LONG})
"""Messages of failures about which no engine is asked: it would run out of time or memory."""

CompiledAnswer = Rendered | Failure
"""The body of a request, or the failure of the template."""


class Accelerator:
    """The compiled form of one template, and whether it is trusted.

    Args:
        name: The name of the template.
        form: The compiled template, or the reason why there is none.
    """

    def __init__(self, name: str, form: Compiled | NotCompiled) -> None:
        self._name = name
        self._form = form if isinstance(form, Compiled) else None
        self._seen: set[bytes] = set()
        self._both_every = self._until_both = BOTH_EVERY
        self.why_not = "" if isinstance(form, Compiled) else reason(form)
        self.differences = 0

    @classmethod
    def of(cls, name: str, bundle: Bundle) -> Accelerator:
        """Compile a bundle and return its accelerator."""
        return cls(name, compile_template(bundle))

    @property
    def is_trusted(self) -> bool:
        """Say whether the template is compiled and never differed from the engine."""
        return self._form is not None and not self.differences

    def answer(self, profile: bytes, settings: Mapping[str, Any]) -> CompiledAnswer | None:
        """Render a profile; return None where only the engine can tell."""
        assert self._form is not None
        try:
            value = self._form.render(orjson.loads(profile), settings)
            # What orjson returns keeps the buffer that it was written into: it is copied.
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            return Rendered(bytes(memoryview(text)), value)
        except AssertFailed as failed:
            return Failure(failed.message.strip()[:MAX_MESSAGE], asserted=True)
        except Exhausted as exhausted:
            return Failure(exhausted.message)
        except (Doubtful, orjson.JSONDecodeError, orjson.JSONEncodeError):
            return None

    def is_due(self, settings: bytes) -> bool:
        """Say whether the engine has to render this event, too, to compare the answers."""
        if settings not in self._seen:
            self._seen.add(settings)
            return True
        return self._is_one_of_few()

    def _is_one_of_few(self) -> bool:
        self._until_both = (self._until_both or self._both_every) - 1
        return self._until_both < BOTH_TOGETHER

    def compare_with(self, engine: EngineModule) -> None:
        """Set how often answers are compared, by what a call of that engine costs."""
        self._both_every = BOTH_EVERY if engine == "rjsonnet" else BOTH_EVERY_SLOW
        self._until_both = self._both_every

    def differ(self) -> None:
        """Turn the compiled form off, because it differed from the engine, and log it."""
        self.differences += 1
        import structlog  # noqa: PLC0415 - a throw-away process says nothing, and starts sooner

        structlog.get_logger().error(
            "template.compiled_form_differs",
            template=self._name,
            hint="Jsonnet alone renders it from now on",
        )


def reason(form: NotCompiled) -> str:
    """Return why a template is not compiled, with the place."""
    where = f"{shown(form.file)}:{form.line}:{form.column}: " if form.file else ""
    return where + form.what


def can_be_compared(answer: CompiledAnswer | None) -> bool:
    """Say whether the engine may be asked, too: an evaluation that does not end might kill it."""
    return isinstance(answer, Rendered) or (isinstance(answer, Failure) and answer.asserted)


def is_same(ours: CompiledAnswer, theirs: CompiledAnswer) -> bool:
    """Say whether two answers are the same, whatever the order of their keys."""
    if isinstance(ours, Failure) or isinstance(theirs, Failure):
        return (
            isinstance(ours, Failure)
            and isinstance(theirs, Failure)
            and ours.asserted
            and theirs.asserted
            and is_same_assert(ours, theirs)
        )
    return ours == theirs or _ordered(ours.body) == _ordered(theirs.body)


def _ordered(text: bytes) -> bytes:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS)
