"""The reference of the template library, made from the comments in its sources.

A comment that stands right above a member and begins with its name is about that member: one line
with how it is called, then sentences, then examples.

    // text(value)
    //
    // The text without the space around it.
    //
    //   > values.text("  Ann ")
    //   = "Ann"

Behind an example's expression may stand, four spaces apart, the profile as `{…}` and the trigger's
settings as `settings {…}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import orjson

from segrelay.templates import LIBRARY_FOLDER

_COMMENT: Final = re.compile(r" *// ?(.*)")
_MEMBER: Final = re.compile(r" *([A-Za-z][A-Za-z0-9]*)(?:\(.*\))?::?(?: |$)")
_SETTINGS: Final = "settings "

EVENT: Final = {
    "id": "0123456789abcdef0123456789abcdef",
    "slug": "vip",
    "event": "enter",
    "enter": "2026-11-01T10:00:00Z",
}
"""The segment event of every example."""


class LibraryFile(NamedTuple):
    """One file of the template library, as its reference describes it."""

    variable: str
    imports: str
    source: str
    about: str


LIBRARIES: Final = (
    LibraryFile(
        "event",
        "lytemplates.libsonnet",
        "library.libsonnet",
        "The event and its profile: the functions of Lytics' own library, under Lytics' names."
        " Where Lytics' documentation leaves open what a function does, “our choice” says what"
        " ours does.",
    ),
    LibraryFile(
        "insider",
        "insider.libsonnet",
        "insider.libsonnet",
        "What templates for Insider share. The functions take the name of a field of the profile;"
        " they give null for what is missing and for what they can't make right, and never fail.",
    ),
    LibraryFile(
        "values",
        "values.libsonnet",
        "values.libsonnet",
        "The same for a value, for templates of any destination.",
    ),
)


class Example(NamedTuple):
    """An expression of Jsonnet, and its value.

    Attributes:
        profile: The profile of the event, without `segment_events`.
        result: The value as JSON.
    """

    expression: str
    profile: dict[str, Any]
    settings: dict[str, Any]
    result: str

    @property
    def line(self) -> str:
        """Return the example as a line of the reference."""
        given = [orjson.dumps(self.profile).decode()] if self.profile else []
        given += [_SETTINGS + orjson.dumps(self.settings).decode()] if self.settings else []
        return f"{self.expression}  →  {self.result}" + (
            f"    with {', '.join(given)}" * bool(given)
        )


class LibraryMember(NamedTuple):
    """A function or value of a library."""

    name: str
    call: str
    text: str
    examples: Sequence[Example]


def members(library: LibraryFile) -> list[LibraryMember]:
    """Return the documented members of a library, in the order of its source."""
    source = (LIBRARY_FOLDER / library.source).read_text("utf-8")
    found: list[LibraryMember] = []
    comment: list[str] = []
    for line in source.splitlines():
        if written := _COMMENT.fullmatch(line):
            comment.append(written[1])
            continue
        member = _MEMBER.match(line)
        if member and comment and re.split(r"\W", comment[0])[0] == member[1]:
            found.append(_member(member[1], comment))
        comment = []
    return found


def _member(name: str, comment: Sequence[str]) -> LibraryMember:
    examples = list(_examples(comment))
    words = [line for line in comment[1:] if not line.startswith("  ")]
    paragraphs = "\n".join(words).strip().split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return LibraryMember(name, comment[0], text, examples)


def _examples(comment: Sequence[str]) -> Iterator[Example]:
    for line, following in pairwise(comment):
        if line.startswith("  > "):
            expression, *given = re.split(r" {4,}", line.removeprefix("  > "))
            settings = [one.removeprefix(_SETTINGS) for one in given if one.startswith(_SETTINGS)]
            profile = [one for one in given if not one.startswith(_SETTINGS)]
            yield Example(
                expression,
                orjson.loads(profile[0]) if profile else {},
                orjson.loads(settings[0]) if settings else {},
                following.removeprefix("  = "),
            )


def library_page() -> str:
    """Return the text of `docs/library.md`."""
    parts = [_HEAD]
    for library in LIBRARIES:
        imported = f'local {library.variable} = import "{library.imports}";'
        parts.append(
            f"## `{library.imports}`\n\n{library.about}\n\n```jsonnet\n{imported}\n```\n\n"
        )
        for member in members(library):
            examples = "\n".join(example.line for example in member.examples)
            parts.append(f"### `{library.variable}.{member.call}`\n\n{member.text}\n\n")
            parts.append(f"```\n{examples}\n```\n\n")
    return "".join(parts).rstrip("\n") + "\n"


_HEAD: Final = f"""\
# The template library

This page is generated from the comments of the library (`templates/lib/`) by `make docs`, and the
tests evaluate every example in it. In all examples the event is

```json
{orjson.dumps(EVENT).decode()}
```

"""
