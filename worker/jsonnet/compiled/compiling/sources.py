"""The files of a template, as texts and as trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.jsonnet.syntax import tree
from worker.jsonnet.syntax.parser import parse
from worker.jsonnet.syntax.scopes import check, has_assert, imports


@dataclass(frozen=True, slots=True)
class Sources:
    """A template and what it imports.

    Args:
        targets: What an import means: by the importer's name and the path it wrote.
        library: The name under which the library is imported.
        trees: Of files that were parsed and checked already.
    """

    root: str
    texts: Mapping[str, str]
    targets: Mapping[tuple[str, str], str]
    library: str
    trees: Mapping[str, tree.Node] = field(default_factory=dict, compare=False)

    def __hash__(self) -> int:
        """Hash texts and imports: equal ones compile to the same Python."""
        return hash((self.root, *self.texts.items(), *self.targets.items()))


@dataclass(slots=True)
class Trees:
    """Parses files when they are asked for."""

    sources: Sources
    _parsed: dict[str, tree.Node] = field(default_factory=dict)

    def of(self, name: str) -> tree.Node:
        """Return a file's tree.

        Raises:
            SyntaxWrong: It does not parse, or names what nobody knows.
        """
        if name in self.sources.trees:
            return self.sources.trees[name]
        if name not in self._parsed:
            self._parsed[name] = parse(self.sources.texts[name])
            check(self._parsed[name])
        return self._parsed[name]

    def are_about_events(self, name: str) -> bool:
        """Return whether a file has to be evaluated for each event, itself or through another.

        It imports the library, or has an `assert`, whose failing is noted for an event.
        """
        return self._leads_to_events(name, set())

    def _leads_to_events(self, name: str, seen: set[str]) -> bool:
        if name == self.sources.library:
            return True
        if name in seen:
            return False
        seen.add(name)
        return has_assert(self.of(name)) or any(
            self._leads_to_events(self.sources.targets[name, each.path], seen)
            for each in imports(self.of(name))
            if each.word == "import"
        )
