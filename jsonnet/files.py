"""Templates with all that they import, read from the templates folder, a library, nowhere else.

A template is loaded together with everything that it imports, so that what renders is what was
checked, whatever happens to the files later. In the engines a file has a name of its own:
`templates:/insider/enter.jsonnet` in the templates folder, `lib:/values.libsonnet` in the library.

Workers are compared by digests of the files that their templates use (`UsedFiles`). Files are not
parsed for it: every text that looks like an import counts, so that a library of templates is read
in milliseconds. The files of the library are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, NamedTuple

from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.parser import parse
from segrelay.jsonnet.syntax.tokens import (
    SyntaxWrong,
    Token,
    location,
    markdown_damage,
    refuse_too_deep,
    significant,
)

_STD_FOLDER: Final = Path(__file__).parent / "std"
_TEMPLATES: Final = "templates:/"
_LIB: Final = "lib:/"
_COMBINED: Final = "(combined)"
_NO_NATIVES: Final = (
    "std.native: a template can't call native functions; the library has sha1 and sha256 for hashes"
)
_HASH_CHARACTERS: Final = 12
_FILES_KEPT: Final = 256
"""The parsed files kept in memory: templates share the library's, so each is parsed once."""


@dataclass(frozen=True, slots=True)
class LibraryFunction:
    """A function of the library.

    Args:
        run: The Python function, which gets profile, settings, and a handle or `MISSING` for each
            parameter.
        names: the parameters' names.
        required: the number of parameters without a default.
        gives: the kind of the result, where it is always the same.
        inline: The code in the place of a call: for `row` and `settings` a look-up
            f(field, default=null) in one of them, for `in row` whether f(field) is a field.
    """

    run: Callable[..., Any]
    names: tuple[str, ...]
    required: int
    gives: str = "any"
    inline: Literal["", "row", "settings", "in row"] = ""


class Language(NamedTuple):
    """A language of templates beside Jsonnet.

    Attributes:
        name: The name by which people know it, such as JavaScript.
        module: The module that renders it: its `load` takes a bundle and returns a
            `segrelay.jsonnet.renderer.LoadedTemplate`. It is imported for the first template.
    """

    name: str
    module: str


@dataclass(frozen=True)
class Library:
    """Files that all templates may import; one of them tells a template of the event.

    Args:
        folder: The folder of its files, which are looked for behind those of the templates folder.
        event_file: The file whose value depends on the event, such as `event.libsonnet`. An import
            with this last segment means it, whatever the path. It calls the native functions
            `profile` and `settings`, each of which returns a JSON text.
        inner_file: The source that yields the same value in two steps: a function of the settings,
            which returns a function of the profile. No template may import it.
        functions: A function that returns the functions of `event_file` in Python, for compiled
            templates.
        samples: A function that returns profiles for which both forms of a template are compared as
            it is loaded.
        languages: The languages of templates beside Jsonnet, by the ending of their files.
    """

    folder: Path
    event_file: str
    inner_file: str
    functions: Callable[[], Mapping[str, LibraryFunction]] = dict
    samples: Callable[[], Sequence[bytes]] = tuple
    languages: Mapping[str, Language] = field(default_factory=dict)

    def language_of(self, template: str) -> Language | None:
        """Return the language of a template that is not Jsonnet; None = it is."""
        return self.languages.get(PurePosixPath(template).suffix)

    @property
    def name(self) -> str:
        """The name of `event_file` in the engines."""
        return _LIB + self.event_file

    def is_meant_by(self, target: str) -> bool:
        """Say whether an import means `event_file`."""
        return PurePosixPath(target).name == self.event_file

    @cached_property
    def inner_sources(self) -> Mapping[str, str]:
        """The texts of the files that call our native functions, or hide them, by their names."""
        paths = [self.folder / self.inner_file, *_STD_FOLDER.iterdir()]
        return {_LIB + path.name: path.read_text("utf-8") for path in paths}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a bundle.

    Args:
        text: The text of the file.
        is_code: True if it is code, which is evaluated; else it is imported as text only.
        targets: The names under which the bundle holds its imports, in their order.
    """

    name: str
    text: str
    is_code: bool
    targets: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Return the significant tokens; none where it is text only."""
        return _tokens(self.text) if self.is_code else ()

    @property
    def parsed(self) -> tree.Node | None:
        """Return the tree that the tokens form; None where it is text only."""
        return _parsed(self.text)[0] if self.is_code else None

    @property
    def imports(self) -> tuple[tuple[tree.Import, str], ...]:
        """Return the file's imports, each with the name of the imported file in the bundle."""
        found = _parsed(self.text)[1] if self.is_code else ()
        return tuple(zip(found, self.targets, strict=True))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A template and everything that it imports.

    Args:
        content_hash: The hash over names and texts; the library is not part of it unless imported.
        parts: The templates that are rendered one by one into an object: for each of its fields the
            name of a file, or an object of these.
    """

    root: str
    files: Mapping[str, SourceFile]
    content_hash: str
    library: Library
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def language(self) -> Language | None:
        """The language of the template; None = Jsonnet."""
        return self.library.language_of(self.root)

    def part(self, name: str) -> Bundle:
        """Return the bundle of one of the `parts`."""
        return replace(self, root=name, parts={})

    def __hash__(self) -> int:
        return hash((self.root, self.content_hash))


def shown(name: str) -> str:
    """Return a file's name as a person would write it: relative to `templates`."""
    if name.startswith(_TEMPLATES):
        return name.removeprefix(_TEMPLATES)
    return name.replace(_LIB, "lib/", 1)


def resolutions(bundle: Bundle) -> dict[tuple[str, str], str]:
    """Return the file of each import, by the importer's folder and the path that it wrote."""
    return {
        (str(PurePosixPath(name).parent), found.path): target
        for name, file in bundle.files.items()
        for found, target in file.imports
    }


def is_combined(template: str) -> bool:
    """Say whether a name is an object of several templates that are rendered together."""
    return template.startswith("{")


class TemplateFolder:
    """A folder of templates, with the files of a library behind it."""

    def __init__(self, folder: Path, library: Library) -> None:
        self._library = library
        self._roots = {_TEMPLATES: folder.resolve(), _LIB: library.folder.resolve()}

    def bundle(self, template: str) -> Bundle:
        """Read a template and, transitively, its imports.

        Args:
            template: The path, relative to the templates folder.

        Raises:
            TemplateBroken: A file is missing, outside, not text, or nested too deep.
        """
        if is_combined(template):
            return self._combined(json.loads(template))
        files: dict[str, SourceFile] = {}
        root = self._root_name(template)
        if self._library.language_of(root):
            files[root] = SourceFile(root, self._text(root), is_code=False)
            return Bundle(root, files, _hash_of(files), self._library)
        waiting = [(root, True)]
        while waiting:
            name, is_code = waiting.pop()
            if name in files and (files[name].is_code or not is_code):
                continue
            files[name] = self._source_file(name, is_code=is_code)
            waiting.extend(
                (target, found.word == "import") for found, target in files[name].imports
            )
        return Bundle(root, files, _hash_of(files), self._library)

    def _combined(self, parts: Mapping[str, Any]) -> Bundle:
        """Return the bundle of templates that are rendered into one object, one by one."""
        files: dict[str, SourceFile] = {}

        def named(part: Any) -> Any:
            if isinstance(part, dict):
                return {name: named(each) for name, each in part.items()}
            bundle = self.bundle(part)
            files.update(bundle.files)
            return bundle.root

        names = named(parts)
        content_hash = _hash_of(files, json.dumps(names))
        return Bundle(_TEMPLATES + _COMBINED, files, content_hash, self._library, names)

    def _root_name(self, template: str) -> str:
        problem = _path_problem(template) or self._kind_problem(template)
        if problem:
            raise TemplateBroken(f"{template}: {problem}.", template)
        name = self._existing(_TEMPLATES, PurePosixPath(template))
        if name is None:
            folder = self._roots[_TEMPLATES]
            raise TemplateBroken(f"{template}: there is no such file in {folder}.", template)
        return name

    def _kind_problem(self, template: str) -> str:
        """Return what is wrong with a template's file ending, such as `.liquid`; "" = nothing."""
        languages = {ending: each.name for ending, each in self._library.languages.items()}
        ending = PurePosixPath(template).suffix
        if ending in {".jsonnet", ".libsonnet", *languages}:
            return ""
        rendered = [f"{name} ({of})" for of, name in {".jsonnet": "Jsonnet", **languages}.items()]
        ends = f"ends in {ending}" if ending else "has no ending of a language"
        return f"{ends}; a template is written in {' or '.join(rendered)}"

    def _source_file(self, name: str, *, is_code: bool) -> SourceFile:
        text = self._text(name)
        imports = _imported(name, text) if is_code else ()
        targets = tuple(self._target(name, text, each) for each in imports)
        return SourceFile(name, text, is_code, targets)

    def _text(self, name: str) -> str:
        prefix = _prefix_of(name)
        try:
            return (self._roots[prefix] / name.removeprefix(prefix)).read_bytes().decode()
        except UnicodeDecodeError as error:
            raise TemplateBroken(f"{shown(name)}: is not UTF-8 text.", shown(name)) from error
        except OSError as error:
            message = f"{shown(name)}: can't be read ({error.strerror})."
            raise TemplateBroken(message, shown(name)) from error

    def _target(self, importer: str, text: str, found: tree.Import) -> str:
        line, column = location(text, found.at)
        where = f"{shown(importer)}:{line}:{column}"
        if self._library.is_meant_by(found.path) and found.word == "import":
            return self._library.name
        problem = _path_problem(found.path)
        if not problem:
            try:
                name = self._resolved(importer, found.path)
            except TemplateBroken as error:
                raise TemplateBroken(
                    f"{where}: {error.message}", shown(importer), line, column
                ) from error
            if name in self._library.inner_sources and _prefix_of(importer) != _LIB:
                problem = f"is an inner file of the library; import {self._library.event_file}"
            elif name is not None:
                return name
        problem = problem or ("is neither beside this file nor in the templates folder nor in lib")
        message = f'{where}: {found.word} "{found.path}" {problem}.'
        raise TemplateBroken(message, shown(importer), line, column)

    def _resolved(self, importer: str, target: str) -> str | None:
        prefix = _prefix_of(importer)
        beside = PurePosixPath(importer.removeprefix(prefix)).parent
        tried = ((prefix, beside / target), (_TEMPLATES, PurePosixPath(target)))
        for folder, path in (*tried, (_LIB, PurePosixPath(target))):
            name = self._existing(folder, path)
            if name is not None:
                return name
        name = _LIB + target  # ours for an engine's `std`, which lie in no folder of the user
        return name if name in self._library.inner_sources else None

    def _existing(self, prefix: str, path: PurePosixPath) -> str | None:
        """Return the name of a file that exists below the prefix's folder.

        Raises:
            TemplateBroken: The path leads outside, by `..` or by a symbolic link.
        """
        root = self._roots[prefix]
        real = (root / path).resolve()
        if real.is_relative_to(root):
            return prefix + real.relative_to(root).as_posix() if real.is_file() else None
        inside = next((p for p, r in self._roots.items() if real.is_relative_to(r)), None)
        if inside is not None and real.is_file():
            return inside + real.relative_to(self._roots[inside]).as_posix()
        raise TemplateBroken(
            f'"{path}" leads outside of the templates folder; only files inside it, and the'
            " shipped lib, can be used."
        )


def _path_problem(path: str) -> str:
    if not path.strip() or "\0" in path or "\\" in path:
        return "is not a path"
    if PurePosixPath(path).is_absolute():
        return "is an absolute path; name it relative to the templates folder"
    return ""


def _prefix_of(name: str) -> str:
    return _LIB if name.startswith(_LIB) else _TEMPLATES


@lru_cache(_FILES_KEPT)
def _tokens(text: str) -> tuple[Token, ...]:
    return tuple(significant(text))


@lru_cache(_FILES_KEPT)
def _parsed(text: str) -> tuple[tree.Node, tuple[tree.Import, ...], tuple[int, ...]]:
    """Return a file's tree, its imports, and where it names `std.native`: all by its text alone.

    Raises:
        SyntaxWrong: It does not parse, is nested too deep, or names what nobody knows.
    """
    refuse_too_deep(_tokens(text))
    node = parse(text, _tokens(text))
    tree.check(node)
    return node, tuple(tree.imports(node)), tuple(tree.natives(node))


def _imported(name: str, text: str) -> tuple[tree.Import, ...]:
    """Return the imports of a file.

    Raises:
        TemplateBroken: It does not parse, or names what nobody or no template knows.
    """
    if not _tokens(text):
        raise TemplateBroken(f"{shown(name)}: is empty.", shown(name), 1, 1)
    try:
        _, found, natives = _parsed(text)
    except SyntaxWrong as wrong:
        raise _broken(name, text, _tokens(text), wrong) from wrong
    if natives and not name.startswith(_LIB):
        raise _broken(name, text, _tokens(text), SyntaxWrong(_NO_NATIVES, natives[0]))
    return found


def _broken(name: str, text: str, found: tuple[Token, ...], wrong: SyntaxWrong) -> TemplateBroken:
    line, column = location(text, wrong.at)
    message = f"{shown(name)}:{line}:{column}: {wrong.message}."
    damage = markdown_damage(found)
    if damage is not None:
        line, column = location(text, damage[0])
        message = (
            f'{shown(name)}:{line}:{column}: "{damage[1]}" is damage from Markdown: a page put a'
            " backslash there when the template was copied; remove such backslashes. (Without"
            f" this hint it would be: {message})"
        )
    return TemplateBroken(message, shown(name), line, column)


def _hash_of(files: Mapping[str, SourceFile], parts: str = "") -> str:
    digest = hashlib.sha256(parts.encode())
    for name in sorted(files):
        text = files[name].text.encode()
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()[:_HASH_CHARACTERS]


_IMPORT: Final = re.compile(rb"""\bimport(?:str|bin)?\s*["']([^"']+)["']""")
_NAME: Final = re.compile(r'"([^"]+)"')
_DIGEST_CHARACTERS: Final = 8

FolderStamp = frozenset[tuple[str, int, int, int]]
"""Path, time of change, size and inode of each file of a folder."""


def stamp_of(folder: Path) -> FolderStamp:
    """Return a stamp that changes whenever a file of the folder does."""
    found = set()
    for path in folder.rglob("*"):
        try:
            state = path.stat()
        except OSError:
            continue
        found.add((str(path), state.st_mtime_ns, state.st_size, state.st_ino))
    return frozenset(found)


class UsedFiles:
    """Digests of the files of a folder that templates use, renewed when the folder changes.

    Args:
        templates: The names of templates; one that is a JSON object names several.
    """

    def __init__(self, folder: Path, templates: Iterable[str]) -> None:
        self._folder = folder
        self._roots = sorted({part for name in templates for part in _parts(name)})
        self._stamp: FolderStamp | None = None
        self._digests: dict[str, str] = {}

    def digests(self) -> Mapping[str, str]:
        """Return the digest of each file, by its path in the folder."""
        stamp = stamp_of(self._folder)
        if stamp != self._stamp:
            self._digests, self._stamp = self._read(), stamp
        return self._digests

    def _read(self) -> dict[str, str]:
        folder, found = self._folder.resolve(), dict[str, str]()
        waiting = [folder / name for name in self._roots]
        while waiting:
            try:
                path = waiting.pop().resolve()
                if not path.is_relative_to(folder):
                    continue
                name, text = path.relative_to(folder).as_posix(), path.read_bytes()
            except (OSError, ValueError):  # it is not there, or no path at all
                continue
            if name in found:
                continue
            found[name] = hashlib.sha256(text).hexdigest()[:_DIGEST_CHARACTERS]
            for imported in _IMPORT.findall(text):
                target = imported.decode(errors="replace")
                waiting += [path.parent / target, folder / target]
        return dict(sorted(found.items()))


def _parts(template: str) -> list[str]:
    return _NAME.findall(template) if is_combined(template) else [template]
