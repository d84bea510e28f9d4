"""Rewriting of templates as functions of the event, so that one evaluation renders many events.

A file is evaluated once a call, so `import "lytemplates.libsonnet"` could mean only one event. Each
file that needs the library, directly or through another, becomes a function of it:

    local event = import "lytemplates.libsonnet";     function(_0) local _1 = …;
    local h = import "h.libsonnet";                →  local event = _0                            ;
    h.body(event)                                     local h = _1                   ;
                                                      h.body(event)

(`_1` is bound in the first line to the rewritten helper.) Imports are replaced by names padded to
the same width, so columns stay; the first line is ours, so one is subtracted from line numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from segrelay.jsonnet.files import Bundle, Library, SourceFile
from segrelay.jsonnet.syntax.tokens import Token, TokenKind
from segrelay.jsonnet.syntax.tree import Import

TEMPLATES_STD: Final = "std-for-templates.libsonnet"
"""The file that hides our native functions from templates, and the output of `std.trace`."""
_HIDDEN: Final = frozenset({"native", "trace"})
_STD: Final = re.compile(r"std(?!\w)(?:\.([A-Za-z_]\w*))?", re.ASCII)
"""The uses of `std` in a text, with the name of the function where it stands right behind it.

Not by tokens, because an engine may see a token where another one sees a comment or a string.
"""
RJSONNET_STD: Final = "std-for-rjsonnet.libsonnet"
"""The file that adds what rjsonnet 0.5.6 lacks of `std`, and corrects what it does wrong."""
RJSONNET_LACKS: Final = frozenset(
    {
        *("atan2", "deg2rad", "escapeStringJson", "flattenDeepArray", "foldl", "foldr", "hypot"),
        *("isNull", "isOdd", "log10", "log2", "manifestJson", "manifestJsonEx"),
        *("manifestJsonMinified", "mantissa", "objectRemoveKey", "pi", "rad2deg", "slice"),
        *("split", "splitLimit", "trim"),
    }
)
"""The functions of `std` that rjsonnet lacks or gets wrong; a file with one gets `RJSONNET_STD`."""
REFERENCE_STD: Final = "std-for-jsonnet.libsonnet"
"""The file that adds what the reference implementation leaves to go-jsonnet."""
REFERENCE_LACKS: Final = frozenset(
    {"manifestJson", "manifestJsonEx", "manifestJsonMinified", "sha1", "sha256", "trim"}
)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A bundle whose root is a function of the library.

    Args:
        headed: Files that begin with a line of ours: their line numbers are one too high.
    """

    root: str
    sources: Mapping[str, str]
    headed: frozenset[str]


def rewrite(
    bundle: Bundle, std_file: str = RJSONNET_STD, lacks: frozenset[str] = RJSONNET_LACKS
) -> Rewritten:
    """Make the root, and every file that needs the library, a function of the library."""
    needing = _needing_library(bundle) | {bundle.root}
    sources: dict[str, str] = {}
    headed: set[str] = set()
    for name, file in bundle.files.items():
        library = bundle.library
        head, text = _as_function(file, library, needing) if name in needing else ("", file.text)
        head += std_head(file, library, std_file, lacks)
        sources[name] = f"{head}\n{text}" if head else text
        if head:
            headed.add(name)
    return Rewritten(bundle.root, sources, frozenset(headed))


def untouched(bundle: Bundle, std_file: str, lacks: frozenset[str]) -> Rewritten:
    """Return the files unchanged, except for a first line that replaces the engine's `std`."""
    library = bundle.library
    heads = {name: std_head(file, library, std_file, lacks) for name, file in bundle.files.items()}
    sources = {
        name: f"{heads[name]}\n{file.text}" if heads[name] else file.text
        for name, file in bundle.files.items()
    }
    return Rewritten(bundle.root, sources, frozenset(name for name in heads if heads[name]))


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
    names = _fresh_names(file.tokens)
    event = next(names)
    bound: dict[str, str] = {library.name: event}
    head = f"function({event}) "
    text = file.text
    for found, target in reversed(file.imports):
        if found.word != "import" or (target != library.name and target not in needing):
            continue
        if target not in bound:
            bound[target] = next(names)
            head += f"local {bound[target]} = (import {quoted(target)})({event}); "
        text = _replaced(text, found, bound[target])
    return head, text


def _fresh_names(tokens: tuple[Token, ...]) -> Iterator[str]:
    taken = {token.text for token in tokens if token.kind is TokenKind.WORD}
    return (name for number in count() if (name := f"_{number}") not in taken)


def _replaced(text: str, found: Import, name: str) -> str:
    """Replace an import by a name that is padded to the same width and line breaks."""
    old = text[found.at : found.end]
    kept = "".join(character if character in "\r\n" else " " for character in old[len(name) :])
    return text[: found.at] + name + kept + text[found.end :]


def quoted(target: str) -> str:
    """Return a text as a string of Jsonnet."""
    return "@'" + target.replace("'", "''") + "'"
