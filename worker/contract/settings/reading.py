"""Reads the configuration's text into tables, collecting all problems."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError

from segrelay.worker.contract.settings.problems import (
    Problem,
    did_you_mean,
    location_of,
    problem_of,
)
from segrelay.worker.contract.settings.sections import Section
from segrelay.worker.contract.settings.values import Surroundings
from segrelay.worker.contract.words import NAME_PATTERN
from segrelay.worker.errors import ConfigurationInvalid

_Table = TypeVar("_Table", bound=Section)
_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_SYNTAX_HINTS: Final[Mapping[str, str]] = {
    "Cannot overwrite a value": "the key is there twice",
    "Cannot declare": "the table is there twice",
    "Invalid value": "text stands in quotes",
    "Invalid initial character": "a name with other characters than A-Z a-z 0-9 _ - is quoted",
    "Expected '=' after a key": "a key and its value stand on one line",
    "Illegal character": "close the quotes on the same line",
    "Unescaped '\\' in a string": "write \\\\, or the text in single quotes",
}


def read_text(source: Path) -> str:
    """Return the file's text.

    Raises:
        ConfigurationInvalid: It is not there or can't be read.
    """
    try:
        return source.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationInvalid(
            f"{source.name}: there is no {source} — `segrelay init DIR` writes one;"
            " SEGRELAY_CONFIG names another"
        ) from None
    except OSError as error:
        raise ConfigurationInvalid(
            f"{source.name}: {source} can't be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationInvalid(
            f"{source.name}: line {line}: is not UTF-8 — save the file as UTF-8"
        ) from None


def merged_environment(folder: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with what `.env` in a folder adds; the environment wins."""
    file = folder / ".env"
    if not file.is_file():
        return environ
    try:
        written = dotenv_values(file, interpolate=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid(f".env: {file} can't be read as UTF-8 text") from error
    return {key: value for key, value in written.items() if value is not None} | dict(environ)


def parse(source: Path, text: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the file as nested tables; if it is not TOML, add a problem and return none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax_problem(str(error), text))
    except RecursionError:
        problems.append(Problem("", f"{source.name} is nested too deeply"))
    return {}


def _syntax_problem(message: str, text: str) -> Problem:
    lines = text.rstrip("\n").split("\n")
    found = _POSITION.search(message)
    line, column = (found[1], found[2]) if found and found[1] else (len(lines), len(lines[-1]) + 1)
    plain = _POSITION.sub("", message)
    hint = next((hint for start, hint in _SYNTAX_HINTS.items() if plain.startswith(start)), "")
    return Problem(f"line {line}, column {column}", f"not TOML: {plain}", hint)


class SectionReader:
    """Validates the tables of a configuration, and collects their problems.

    Args:
        surroundings: The surroundings that the values refer to.

    Attributes:
        problems: All that were found so far.
        locations: Key path → where the value really came from.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self.problems: list[Problem] = []
        self.locations: dict[str, str] = {}

    def refuse_unknown(
        self, document: Mapping[str, Any], known: Iterable[str], within: tuple[str, ...] = ()
    ) -> None:
        """Add a problem for every unknown key or table of the file, or of a table in it."""
        known = list(known)
        for key in document:
            if key not in known:
                hint = did_you_mean(key, known)
                self._add(Problem(location_of((*within, key)), "unknown key", hint))

    def text(self, document: Mapping[str, Any], key: str, default: str) -> str:
        """Return a text that stands at the top level of the file."""
        value = document.get(key, default)
        if isinstance(value, str) and value.strip():
            return value
        self._add(Problem(key, "must be text in quotes, and not empty"))
        return default

    def table(self, model: type[_Table], document: Mapping[str, Any], key: str) -> _Table | None:
        """Return one table, with its defaults where the file does not have it."""
        return self._validated(model, document.get(key, {}), (key,))

    def optional(self, model: type[_Table], document: Mapping[str, Any], key: str) -> _Table | None:
        """Return one table, or None where the file does not have it."""
        return self.table(model, document, key) if key in document else None

    def named(
        self, model: type[_Table], document: Mapping[str, Any], *path: str
    ) -> dict[str, _Table]:
        """Return the valid tables `[path.NAME]`, by name."""
        rows: Any = document
        for depth, key in enumerate(path):
            if depth:
                self.refuse_unknown(rows, (key,), path[:depth])
            rows = rows.get(key, {})
            if not isinstance(rows, dict):
                location = location_of(path[: depth + 1])
                self._add(Problem(location, "must be a table", f"write [{location_of(path)}.NAME]"))
                return {}
        tables = {name: self._one_named(model, row, (*path, name)) for name, row in rows.items()}
        return {name: table for name, table in tables.items() if table is not None}

    def _one_named(self, model: type[_Table], row: Any, path: tuple[str, ...]) -> _Table | None:
        key, name = location_of(path[:-1]), path[-1]
        if not NAME_PATTERN.fullmatch(name):
            self._add(Problem(location_of(path), "is not a name",
                              "names are made of a-z, 0-9 and -"))  # fmt: skip
        if not isinstance(row, dict):
            self._add(Problem(location_of(path), "must be a table", f"write [{key}.NAME]"))
            return None
        if "name" in row:
            self._add(Problem(location_of((*path, "name")), "unknown key",
                              f"the name stands in the table's header: [{key}.NAME]"))  # fmt: skip
        return self._validated(model, row | {"name": name}, path)

    def _validated(self, model: type[_Table], raw: Any, path: tuple[str, ...]) -> _Table | None:
        try:
            return model.model_validate(
                raw, context=self._surroundings, by_alias=True, by_name=False
            )
        except ValidationError as error:
            for one in error.errors(include_url=False):
                known = _keys_of(_model_at(model, one["loc"][:-1]))
                self._add(problem_of(one, path=path, known=known))
        return None

    def _add(self, problem: Problem) -> None:
        location = self.locations.get(problem.location, problem.location)
        self.problems.append(Problem(location, problem.message, problem.hint))


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """Return the model of the inner table at a path."""
    for step in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        kind = fields[step].annotation if step in fields else None
        inner = [one for one in (kind, *get_args(kind)) if isinstance(one, type)]
        model = next((one for one in inner if issubclass(one, BaseModel)), model)
    return model


def _keys_of(model: type[BaseModel]) -> list[str]:
    return [
        field.alias or name for name, field in model.model_fields.items() if name != "name"
    ]  # fmt: skip
