"""What a template makes of events: rendered, and shaped where a trigger says for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

import orjson

from ops.letters.rehearsal import Candidate, Rehearsed, rehearse
from ops.templates.trying.explained import Change, changes_of
from worker.checks.rendering import RENDER_MEMORY_BYTES, RENDER_SECONDS
from worker.contract.settings import Settings, Trigger
from worker.core.messages import normalise_message
from worker.destinations.registry import api_of
from worker.errors import TemplateBroken
from worker.jsonnet.files import Bundle, TemplateFolder
from worker.jsonnet.isolated import DiedAt, render_isolated
from worker.jsonnet.rendered import Asserted, Rendered, Result, Row, TemplateFailed

Fate = Literal["rendered", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event.

    Args:
        name: Of the event, for a person.
        fate: What the template did.
        message: Why it was skipped or failed; else why shaping leaves nothing to send.
        body: As rendered; None where it did not render.
        sent: The body of the request; None where nothing is sent, or nobody knows to whom.
        changes: What shaping did.
        is_shaped: A trigger said for which destination.
    """

    name: str
    fate: Fate
    message: str = ""
    file: str = ""
    line: int = 0
    body: Any = field(default=None, repr=False)
    sent: Any = field(default=None, repr=False)
    changes: tuple[Change, ...] = ()
    is_shaped: bool = False
    reason: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """Return it as commands print it with `--json`."""
        base: dict[str, Any] = {"event": self.name, "outcome": self.fate}
        if self.fate == "skipped":
            return base | {"reason": "asserted", "message": self.message}
        if self.fate == "failed":
            return base | {"message": self.message, "file": self.file, "line": self.line}
        if not self.is_shaped:
            return base | {"body": self.body}
        return base | {
            "body": self.body,
            "sent": self.sent,
            "reason": self.reason,
            "message": self.message,
            "changes": [
                {"path": c.path, "did": c.did, "why": c.why, "before": c.before, "after": c.after}
                for c in self.changes
            ],
        }


def rendered(
    folder: Path,
    template: str,
    profiles: Sequence[tuple[str, bytes]],
    settings: Mapping[str, Any],
) -> list[Outcome]:
    """Render profiles, each with a name, in a process of their own; nothing is shaped.

    Raises:
        TemplateBroken: The template does not load.
    """
    bundle = TemplateFolder(folder).bundle(template)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(profiles):
        left = profiles[len(outcomes) :]
        results = _isolated(bundle, [text for _, text in left], settings)
        done = results.results if isinstance(results, DiedAt) else results
        outcomes += [_outcome(name, one) for (name, _), one in zip(left, done, strict=False)]
        if isinstance(results, DiedAt):
            outcomes.append(_killed(left[results.row][0], template))
    return outcomes


def _isolated(
    bundle: Bundle, texts: Sequence[bytes], settings: Mapping[str, Any]
) -> list[Result] | DiedAt:
    return render_isolated(
        bundle,
        [Row(text, settings) for text in texts],
        seconds=RENDER_SECONDS,
        memory_bytes=RENDER_MEMORY_BYTES,
    )


def _killed(name: str, template: str) -> Outcome:
    message = f"{template}: rendering this event ends or hangs the process."
    return Outcome(name, "failed", message, template)


def _outcome(name: str, result: Result) -> Outcome:
    match result:
        case Rendered(body):
            return Outcome(name, "rendered", body=orjson.loads(body))
        case Asserted(message):
            return Outcome(name, "skipped", normalise_message(message))
        case TemplateFailed(message, file, line):
            return Outcome(name, "failed", normalise_message(message), file, line)
        case _ as never:
            assert_never(never)


def delivered(
    candidates: Sequence[Candidate],
    trigger: Trigger,
    settings: Settings,
    *,
    template: str,
    folder: Path | None = None,
    now_us: int,
) -> list[Outcome]:
    """Render and shape events as deliveries of a trigger, with any template of any folder.

    Raises:
        TemplateBroken: The template does not load.
    """
    folder = folder or settings.templates_folder
    with_other = trigger.model_copy(update={"template": template})
    as_if = settings.model_copy(
        update={"templates_folder": folder, "triggers": {trigger.name: with_other}}
    )
    names = [str(number) for number in range(len(candidates))]
    numbered = [
        Candidate(name, trigger.name, one.header, one.profile)
        for name, one in zip(names, candidates, strict=True)
    ]
    found = {one.name: one for one in rehearse(numbered, as_if, now_us=now_us)}
    return [
        _of_rehearsed(found[name], one.name, with_other, as_if)
        for name, one in zip(names, candidates, strict=True)
    ]


def _of_rehearsed(one: Rehearsed, name: str, trigger: Trigger, settings: Settings) -> Outcome:
    if not one.body:
        fate: Fate = "skipped" if one.fate == "skipped" else "failed"
        return Outcome(name, fate, one.message, trigger.template, reason=one.reason)
    body = orjson.loads(one.body)
    shaped = one.shaped
    if shaped is None:
        return Outcome(name, "rendered", one.message, body=body, is_shaped=True, reason=one.reason)
    api = api_of(settings, trigger)
    users = [orjson.dumps(user) for user in shaped.users]
    sent = orjson.loads(api.assemble(users, shaped.root) or b"null")
    changes = tuple(changes_of(body, sent, shaped.dropped))
    return Outcome(name, "rendered", body=body, sent=sent, changes=changes, is_shaped=True)


def raise_if_broken(outcomes: Sequence[Outcome], template: str) -> None:
    """Raise for a template that killed its process where a single event was tried.

    Raises:
        TemplateBroken: With the event.
    """
    for number, one in enumerate(outcomes, 1):
        if one.fate == "failed" and "ends or hangs the process" in one.message:
            raise TemplateBroken(
                f"{template}: rendering event {number} of {len(outcomes)} ends or hangs the"
                " process.",
                template,
            )
