"""Reads the configuration's text, and says in words what is wrong with it.

A problem has its place and, where there is one, a hint.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError

from segrelay.worker.contract.printable import did_you_mean
from segrelay.worker.contract.settings.values import REFERENCE, is_reference
from segrelay.worker.errors import ConfigurationInvalid

KeyPath = tuple[str | int, ...]
"""The keys that lead to a value of the file; a number is a position in a list."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_*-]+")
_KEY: Final = "[key]"
"""Pydantic's word for a key that is wrong, behind the key."""
_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false, without quotes",
    "tuple_type": "must be a list in brackets",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
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


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, or, as a warning, looks wrong.

    Args:
        path: The keys that lead to it; none for the whole file.
        message: The problem, without a value that could be secret.
        hint: Advice; "" where that is plain.
    """

    path: KeyPath
    message: str
    hint: str = ""

    def line(self, file: str, origins: Mapping[str, str] | None = None) -> str:
        """Return the problem as one line for a person.

        Args:
            file: Its name.
            origins: By location, the variable that a value came from instead of the file.
        """
        location = location_of(self.path)
        parts = (file, (origins or {}).get(location, location), self.message)
        return ": ".join(filter(None, parts)) + (f" — {self.hint}" if self.hint else "")


def location_of(path: Iterable[str | int]) -> str:
    """Return a key path as TOML writes it, with positions of lists in brackets."""
    location = ""
    for step in path:
        if isinstance(step, int):
            location += f"[{step}]"
            continue
        key = step if _BARE_KEY.fullmatch(step) else f'"{step}"'
        location += f".{key}" if location else key
    return location


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


def parse(source: Path, text: str) -> dict[str, Any]:
    """Return the file as nested tables.

    Raises:
        ConfigurationInvalid: It is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        lines = text.rstrip("\n").split("\n")
        line, column = found.groups() if found and found[1] else (len(lines), len(lines[-1]) + 1)
        plain = _POSITION.sub("", str(error))
        hint = next((f" — {hint}" for start, hint in _SYNTAX_HINTS.items()
                     if plain.startswith(start)), "")  # fmt: skip
        told = f"line {line}, column {column}: not TOML: {plain}{hint}"
    except RecursionError:
        told = "is nested too deeply"
    raise ConfigurationInvalid(f"{source.name}: {told}")


def problems_of_form(model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    """Yield what pydantic found wrong with a file that a model describes."""
    for one in error.errors(include_url=False):
        path = tuple(step for step in one["loc"] if step != _KEY)
        context, given = one.get("ctx", {}), one.get("input")
        if one["type"] == "extra_forbidden":
            key = str(path[-1])
            in_header = "the name stands in the table's header" if key == "name" else ""
            hint = in_header or did_you_mean(key, _keys_at(model, path[:-1]))
            yield Problem(path, "unknown key", hint)
        elif isinstance(given, str) and is_reference(given) and one["type"] != REFERENCE:
            yield misplaced(path)
        elif one["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            near = difflib.get_close_matches(str(given), choices, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            yield Problem(path, f"must be {context['expected']}", hint)
        else:
            known = _MESSAGES.get(one["type"])
            message = known.format_map(context) if known else one["msg"]
            yield Problem(path, message, context.get("hint", ""))


def misplaced(path: KeyPath) -> Problem:
    """Return the problem of a text that names a secret where it would be taken literally."""
    hint = "put it into an authorization's headers" if "headers" in path else ""
    return Problem(path, "names a secret, which is not understood here", hint)


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys that the table at a path may have."""
    for step in path:
        waiting: list[Any] = [
            field.annotation for field in model.model_fields.values() if field.alias == step
        ]
        while waiting:
            kind = waiting.pop(0)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
                break
            waiting += get_args(kind)
    fields = model.model_fields.values()
    return [field.alias or "" for field in fields if field.alias == field.validation_alias]
