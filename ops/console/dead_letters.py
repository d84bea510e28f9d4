"""The pages of dead letters: their causes, a list, and one letter with what a replay would send."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segrelay.ops.console.app import Asked, Console, Page
from segrelay.ops.console.look import Look, scan
from segrelay.ops.console.revealing import note_reveal
from segrelay.ops.dead_letters.commands import LEFT_OUT, DeadLetterOptions
from segrelay.ops.dead_letters.reading import Cause, StoredDeadLetter, digest_of
from segrelay.ops.dead_letters.replay import candidate_of, failed_at
from segrelay.ops.kept import Filter
from segrelay.worker.checks.preview import Previewed, preview
from segrelay.worker.contract.masking import hidden
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.words import Death
from segrelay.worker.core.messages import location_in
from segrelay.worker.errors import UsageWrong

PAGE: Final = 50
FILTERS: Final = ("trigger", "audience", "kind", "text", "since", "until")


def dead_letters(console: Console, asked: Asked) -> Page:
    """Show the causes, and the letters that the filters choose."""
    look = console.look
    causes = list(look.causes())
    chosen = list(asked.query.get("cause", ()))
    filters = {name: asked.get(name) for name in FILTERS}
    is_filtered = bool(chosen or any(filters.values()))
    number = asked.number("page", 1, 40)
    store = look.dead_letters()
    found = scan(store.find(chosen_dead_letters(look, filters, chosen)), PAGE * number)
    values = {
        "causes": [_cause_row(look, one) for one in causes],
        "kept": sum(one.count for one in causes),
        "chosen": chosen,
        "filters": filters,
        "is_filtered": is_filtered,
        "letters": [
            store.document(one, reveal=False) for one in found.found[PAGE * (number - 1) :]
        ],
        "page": number,
        "has_more": not found.is_whole,
        "triggers": sorted(look.standing().triggers),
        "reasons": sorted(Death),
        "fields": {"cause": chosen, **filters},
    }
    return Page("letters.html", "Dead letters", values)


def chosen_dead_letters(look: Look, filters: Mapping[str, str], causes: Sequence[str]) -> Filter:
    """Return the filter that the fields of a form mean, read as the command reads its options."""
    options = DeadLetterOptions(cause=list(causes) or None, **filters)
    return options.chosen(look.client, look.settings, None)


def _cause_row(look: Look, one: Cause) -> dict[str, Any]:
    location = failed_at(look.settings, one.trigger, one.message)
    return {
        "cause": one,
        "location": location,
        "message": one.message.removeprefix(f"{location_in(one.message)}: "),
    }


def dead_letter(console: Console, asked: Asked) -> Page:
    """Show one letter: why it died, what was sent and answered, and what a replay would send."""
    look = console.look
    store = look.dead_letters()
    found = next(store.find(Filter.of_id(asked.path["id"])), None)
    if found is None:
        raise UsageWrong(
            "There is no such letter: it was replayed or discarded meanwhile, or its address is"
            " wrong."
        )
    reveals = asked.is_post
    if reveals:
        note_reveal(look, asked, f"letter {found['id']}")
    document = store.document(found, reveal=reveals)
    work = store.replay(Filter.of_id(found["id"]))
    again = _again(look, found)
    values = {
        "letter": document,
        "digest": digest_of(found),
        "is_revealed": reveals,
        "obstacles": [LEFT_OUT.get(why, why) for why in work.left_out],
        "again": again,
        "after": _after(again, reveals=reveals),
        "source": list(_source(look, document["location"], found)),
    }
    return Page("letter.html", f"Letter {found['id']}", values)


def _again(look: Look, found: StoredDeadLetter) -> Previewed | None:
    """Return what a replay would send with today's template; None if the entry can't be read."""
    candidate = candidate_of(found)
    if candidate is None or found["trigger"] not in look.settings.triggers:
        return None
    at_us = 1_000 * now_ms(look.client)
    return next(iter(preview([candidate], look.settings, now_us=at_us)), None)


def _after(again: Previewed | None, *, reveals: bool) -> Any:
    if again is None or again.sent is None:
        return None
    return again.sent if reveals else hidden(again.sent)


@dataclass(frozen=True, slots=True)
class DeadLetterSample:
    """A letter with the body that was sent and the body of a replay, masked."""

    id: str
    fate: str
    before: Any
    after: Any


def samples_of(look: Look, ids: Sequence[str]) -> Iterator[DeadLetterSample]:
    """Yield letters with their bodies before and after a replay; gone ones are left out."""
    store = look.dead_letters()
    for found in store.find(Filter(frozenset(ids))) if ids else ():
        again = _again(look, found)
        body = store.document(found, reveal=False)["body"]
        fate = again.fate if again else "unknown"
        yield DeadLetterSample(found["id"], fate, body, _after(again, reveals=False))


_AROUND: Final = 3


def _source(look: Look, location: str, found: StoredDeadLetter) -> Iterator[tuple[int, str, bool]]:
    """Yield the lines of the template around the one that failed: number, text, is that one."""
    name, _, line = location.partition(":")
    if not line.split(":")[0].isdigit() or found["trigger"] not in look.settings.triggers:
        return
    folder = look.settings.templates_folder.resolve()
    file = (folder / name).resolve()
    if not (file.is_relative_to(folder) and file.suffix in {".jsonnet", ".libsonnet", ".js"}):
        return
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    at = int(line.split(":")[0])
    for number in range(max(1, at - _AROUND), min(len(lines), at + _AROUND) + 1):
        yield number, lines[number - 1], number == at
