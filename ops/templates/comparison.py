"""Two versions of a template, also of git's revisions, and how their results differ."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from segrelay.ops.templates.render import field_of
from segrelay.ops.templates.workspace import full_name
from segrelay.worker.checks.preview import Candidate, Previewed, differences, preview
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.errors import UsageWrong

_KINDS: Final = {
    type(None): "null", bool: "boolean", int: "number", float: "number", str: "text",
    list: "empty list", dict: "empty object",
}  # fmt: skip


@dataclass(slots=True)
class FieldDifference:
    """The differences of one field over all events; values are never kept."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Comparison:
    """The differences between what two versions make of the same events.

    Args:
        outcomes: `before → after`, where an event ends otherwise.
        sent: The differences in the bodies of requests, by field; empty without a trigger.
    """

    events: int = 0
    different: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rendered: dict[str, FieldDifference] = field(default_factory=dict)
    sent: dict[str, FieldDifference] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """Return the differences as `template diff --json` prints them."""
        return {
            "events": self.events,
            "different": self.different,
            "outcomes": dict(self.outcomes),
            "rendered": _document(self.rendered),
            "sent": _document(self.sent),
        }


def _document(fields: dict[str, FieldDifference]) -> dict[str, Any]:
    return {name: asdict(one) for name, one in fields.items()}


def compared(before: Sequence[Previewed], after: Sequence[Previewed]) -> Comparison:
    """Compare what two versions make of the same events."""
    found = Comparison()
    rendered: defaultdict[str, FieldDifference] = defaultdict(FieldDifference)
    sent: defaultdict[str, FieldDifference] = defaultdict(FieldDifference)
    for old, new in zip(before, after, strict=True):
        found.events += 1
        ends = (_end(old), _end(new))
        if ends[0] != ends[1]:
            found.outcomes[f"{ends[0]} → {ends[1]}"] += 1
        differs = _add(old.body, new.body, rendered)
        differs |= _add(old.sent, new.sent, sent)
        found.different += differs or ends[0] != ends[1]
    found.rendered = dict(sorted(rendered.items()))
    found.sent = dict(sorted(sent.items()))
    return found


def compare_versions(
    candidates: Sequence[Candidate],
    settings: Settings,
    trigger: Trigger,
    versions: Iterable[Revision],
) -> Comparison:
    """Compare what two versions of a template make of events that a trigger delivers."""
    sides = (
        preview(candidates, settings, trigger=trigger, template=one.template, folder=one.folder)
        for one in versions
    )
    return compared(*sides)


def _end(one: Previewed) -> str:
    if one.shaping is None:
        return one.rendering
    return "sent" if one.shaped else f"not sent ({one.reason})"


def _add(old: Any, new: Any, into: defaultdict[str, FieldDifference]) -> bool:
    """Add the differences between two bodies, and return whether both exist and differ."""
    if old is None or new is None:
        return False
    different = list(differences(old, new))
    for path, did, before, after in different:
        one = into[field_of(path)]
        match did:
            case "added":
                one.added += 1
            case "left out":
                one.removed += 1
            case "changed":
                one.changed += 1
                kind = " → ".join(_KINDS.get(type(value), "text") for value in (before, after))
                one.kinds[kind] = one.kinds.get(kind, 0) + 1
    return bool(different)


@dataclass(frozen=True, slots=True)
class Revision:
    """A version of a template that is compared with another one."""

    folder: Path
    template: str


@contextmanager
def version(text: str, folder: Path, other: str = "") -> Iterator[Revision]:
    """Open the named version: a template, `REVISION:TEMPLATE`, or a revision alone.

    A revision alone means the template of the other side.
    """
    revision, colon, name = text.rpartition(":")
    if colon:
        with _checked_out(revision, folder) as old:
            yield _existing(text, old, name)
    elif (folder / full_name(text, folder)).is_file():
        yield Revision(folder, full_name(text, folder))
    elif other and (folder / full_name(other.rpartition(":")[2], folder)).is_file():
        with _checked_out(text, folder) as old:
            yield _existing(text, old, other.rpartition(":")[2])
    else:
        raise UsageWrong(
            f"{text}: there is no such template in {folder}; name one below that folder, or"
            " REVISION:TEMPLATE for one of git's revisions."
        )


def _existing(said: str, folder: Path, name: str) -> Revision:
    if not (folder / full_name(name, folder)).is_file():
        raise UsageWrong(f"{said}: that revision has no {full_name(name, folder)}.")
    return Revision(folder, full_name(name, folder))


@contextmanager
def _checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Yield the templates folder of a revision; the working tree is not changed."""
    if revision.startswith("-"):
        raise UsageWrong(f"{revision}: that is no revision.")
    command = ["git", "-C", str(folder), "archive", "--format=tar", revision]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UsageWrong("git is not installed here, and a revision was named.") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageWrong(f"{revision}: git knows no such revision ({' '.join(said[:1])}).")
    with tempfile.TemporaryDirectory() as name:
        try:
            with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
                archive.extractall(name, filter="data")
        except tarfile.ReadError as error:  # git's archive of an empty folder is empty
            raise UsageWrong(
                f"{revision}: that revision of git has nothing in {folder}; commit the templates"
                " first, or name two files."
            ) from error
        yield Path(name)
