"""The kinds of values in a configuration, as a person writes them: durations, rates, secrets.

Secrets are read from variables or files, and never printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from segrelay.worker.contract.printable import did_you_mean
from segrelay.worker.contract.settings.urls import masked, refuse_base_reason
from segrelay.worker.contract.words import NAME_PATTERN
from segrelay.worker.errors import ConfigurationInvalid

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_RATE: Final = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*/\s*(s|min|h)")
_PER_MINUTE: Final = {"s": 60.0, "min": 1.0, "h": 1 / 60}
_LONGEST_SECONDS: Final = 100 * 365 * 86_400.0
_HIGHEST_PER_MINUTE: Final = 1e9
_UNIT: Final = re.compile("_(?:seconds|per_minute|folder)$")
_SHOWN: Final = 40
"""Characters of a wrong value that a message repeats."""


def parse_duration(text: str) -> float:
    """Return the seconds of a text like `"15m"`.

    Raises:
        ValueError: It is not a duration, or longer than a hundred years.
    """
    stripped = text.strip()
    if not _DURATION.fullmatch(stripped):
        raise ValueError(f"{text[:_SHOWN]!r} is not a duration")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(stripped))
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f"{text[:_SHOWN]!r} is longer than a hundred years")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def parse_rate(text: str) -> float:
    """Return the requests per minute of a text like `"25000/min"`, `"400/s"` or `"1000/h"`.

    Raises:
        ValueError: It is not a rate, or is zero or absurdly high.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:_SHOWN]!r} is not a rate")
    per_minute = float(match[1]) * _PER_MINUTE[match[2]]
    if not 0 < per_minute <= _HIGHEST_PER_MINUTE:
        raise ValueError(f"{text[:_SHOWN]!r} is not a rate that can be kept")
    return per_minute


def format_rate(per_minute: float) -> str:
    """Return the text of a rate, by the minute or, for slow ones, by the hour."""
    if per_minute % 1:
        return f"{per_minute * 60:.12g}/h"
    return f"{per_minute:.0f}/min"


KeyPath = tuple[str | int, ...]
"""The keys that lead to a value of the file; a number is a position in a list."""
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_*-]+")


def location_of(path: KeyPath) -> str:
    """Return a key path as TOML writes it, with positions of lists in brackets."""
    location = ""
    for step in path:
        if isinstance(step, int):
            location += f"[{step}]"
            continue
        key = step if _BARE_KEY.fullmatch(step) else f'"{step}"'
        location += f".{key}" if location else key
    return location


LITERAL: Final = "literal"
"""The origin of a secret that stands in the configuration itself."""
_ENVIRONMENT: Final = "env:"
_FILE: Final = "file:"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is sent but never shown.

    Args:
        origin: Its origin, for display: `env:NAME`, `file:PATH` or `literal`.
        value: The text; None where it is not set.
        why_unset: The reason why it has no value, for a person; "" where it is set.
    """

    origin: str
    value: str | None = field(default=None, repr=False)
    why_unset: str = field(default="", repr=False)

    @property
    def is_set(self) -> bool:
        """Say whether the secret has a value."""
        return self.value is not None

    def reveal(self) -> str:
        """Return the value itself.

        Raises:
            ConfigurationInvalid: It is not set; the message names the variable or the file.
        """
        if self.value is None:
            raise ConfigurationInvalid(f"{self.origin}: {self.why_unset}")
        return self.value

    def __str__(self) -> str:
        return "set" if self.is_set else "unset"


def is_reference(text: str) -> bool:
    """Say whether a text points to a secret instead of being one."""
    return text.startswith((_ENVIRONMENT, _FILE))


def read_secret(text: str, *, environ: Mapping[str, str], folder: Path) -> Secret:
    """Return the secret that `env:NAME`, `file:PATH` or a literal stands for.

    Args:
        text: The text that stands in the configuration.
        environ: The environment, with what `.env` adds.
        folder: The folder that a relative PATH is relative to.

    Raises:
        ValueError: NAME or PATH is missing or can't be one.
    """
    origin, name = text, text.partition(":")[2]
    if text.startswith(_ENVIRONMENT):
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{text!r} does not name an environment variable")
        value = environ.get(name, "").strip()
        why = f"the environment variable {name} is not set — set it, or add it"
        why += " to the .env beside the configuration"
    elif text.startswith(_FILE):
        if not name.strip():
            raise ValueError(f"{text!r} does not name a file")
        file = folder / Path(name).expanduser()
        value, why = "", f"{file} is empty"
        try:
            value = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            why = f"{file} can't be read: {getattr(error, 'strerror', None) or 'not text'}"
    else:
        origin, value, why = LITERAL, text if text.strip() else "", "the value is empty"
    return Secret(origin, value) if value else Secret(origin, None, why)


REFERENCE: Final = "reference"
EMBEDDED: Final = "embedded"
REDIS_SCHEMES: Final = (
    *("redis", "rediss", "redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
)
_LISTEN: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_HIGHEST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The environment and the folder that the values of a configuration file refer to.

    Args:
        environ: The environment, with what `.env` adds.
        folder: The folder of the file, where relative paths start.
    """

    environ: Mapping[str, str]
    folder: Path


class Frozen(BaseModel):
    """A frozen model that refuses unknown keys, and whose errors show no values.

    A key of the file is the attribute's name without its last word if that is a unit or `folder`:
    `lease` is `lease_seconds`.
    """

    model_config = ConfigDict(
        alias_generator=lambda name: _UNIT.sub("", name),
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        defer_build=True,
    )


class Section(Frozen):
    """A table of the configuration file."""

    description: str = ""
    """A note for people; segrelay does not use it."""


NAME: Final = "[NAME]"
"""The key under which a table is given the name in its header; no key of a file is like it."""


class NamedSection(Section):
    """A table whose header holds its name, such as `[destinations.NAME]`."""

    name: str = Field(validation_alias=NAME)


def wrong(message: str, hint: str = "", kind: str = "wrong") -> PydanticCustomError:
    """Return the error for a validator to raise, with a message and a hint for a person.

    Args:
        message: The message, without a value that could be secret.
        hint: The advice; "" where that is plain.
        kind: The error's type: `REFERENCE` where a text that names a secret is understood, and
            wrong.
    """
    return PydanticCustomError(kind, "{reason}", {"reason": message, "hint": hint})


def matching(pattern: re.Pattern[str], message: str, hint: str = "") -> AfterValidator:
    """Return the check that a text has a form."""

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise wrong(message, hint)
        return text

    return AfterValidator(check)


def _from_file(info: ValidationInfo) -> bool:
    return isinstance(info.context, Surroundings)


def _parsed(parse: Callable[[str], float], hint: str) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            try:
                return parse(value)
            except ValueError as error:
                raise wrong(str(error), hint) from None
        if _from_file(info):
            raise wrong("must be text in quotes", hint)
        return value

    return BeforeValidator(read)


@dataclass(frozen=True, slots=True)
class Between:
    """The limits of a duration, both included, as a person writes them."""

    shortest: str
    longest: str

    def __call__(self, seconds: float) -> float:
        """Return the duration if it lies within the limits."""
        if not parse_duration(self.shortest) <= seconds <= parse_duration(self.longest):
            raise wrong(
                f"{format_duration(seconds)} is not between {self.shortest} and {self.longest}"
            )
        return seconds


def between(shortest: str, longest: str) -> AfterValidator:
    """Return the check that a duration lies within limits, both included."""
    return AfterValidator(Between(shortest, longest))


def secret_of(value: Any, info: ValidationInfo) -> Secret:
    """Return the secret that a text of the configuration stands for."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        hint = "env:NAME, file:PATH or the value itself"
        raise wrong("must be text in quotes", hint)
    surroundings = info.context
    if not isinstance(surroundings, Surroundings):
        return Secret(LITERAL, value)
    try:
        return read_secret(value, environ=surroundings.environ, folder=surroundings.folder)
    except ValueError as error:
        raise wrong(str(error), "write env:NAME or file:PATH", REFERENCE) from None


def _read_redis_url(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if _from_file(info) and is_reference(value):
        secret = secret_of(value, info)
        if secret.value is None:
            raise wrong(f"{secret.origin}: {secret.why_unset}", kind=REFERENCE)
        value = secret.value
    if value in {"", EMBEDDED} or value.partition("://")[0] in REDIS_SCHEMES:
        return value
    schemes = ", ".join(f"{scheme}://" for scheme in REDIS_SCHEMES)
    hint = did_you_mean(value, [EMBEDDED], or_list=False) or f'write "{EMBEDDED}" or {schemes}'
    raise wrong("is not the URL of a Redis", hint, REFERENCE)


def _check_base_url(value: str) -> str:
    reason = refuse_base_reason(value)
    if reason is not None:
        raise wrong(reason)
    return value.rstrip("/")


def _check_listen(value: str) -> str:
    port = int(value.rpartition(":")[2]) if _LISTEN.fullmatch(value) else -1
    if not 0 <= port <= _HIGHEST_PORT:
        raise wrong("is not an address to listen on", 'write it as "127.0.0.1:8080"')
    return value


def _check_trimmed(value: str) -> str:
    if not value.strip():
        raise wrong("must not be empty")
    if value != value.strip():
        raise wrong("begins or ends with a space")
    return value


def _check_json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except TypeError:
        hint = "put it in quotes"
        raise wrong("holds a date or time, which a template can't read", hint) from None
    except ValueError:
        raise wrong("holds a number that JSON does not have") from None
    return value


def _check_template(value: str) -> str:
    path = Path(_check_trimmed(value))
    if path.is_absolute() or ".." in path.parts:
        raise wrong("lies outside the templates folder", "name it as it lies below that folder")
    return value


def _place(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str | Path) or not str(value).strip() or is_reference(str(value)):
        raise wrong("must be text in quotes, and not empty")
    surroundings = info.context
    folder = surroundings.folder if isinstance(surroundings, Surroundings) else Path()
    return folder / Path(value).expanduser()


def _with_names(tables: Any) -> Any:
    if not isinstance(tables, dict):
        return tables
    rows = tables.items()
    return {name: row | {NAME: name} if isinstance(row, dict) else row for name, row in rows}


Text = Annotated[str, AfterValidator(_check_trimmed)]
Whole = StrictInt
Switch = StrictBool
Seconds = Annotated[
    float,
    _parsed(parse_duration, 'write it as "10s", "15m" or "90d"'),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
PerMinute = Annotated[
    float,
    _parsed(parse_rate, 'write it as "25000/min", "400/s" or "1000/h"'),
    PlainSerializer(format_rate, return_type=str, when_used="json"),
    Field(gt=0),
]
SecretValue = Annotated[
    Secret, PlainValidator(secret_of), PlainSerializer(str, return_type=str, when_used="json")
]
RedisUrl = Annotated[
    str,
    BeforeValidator(_read_redis_url),
    PlainSerializer(masked, return_type=str, when_used="json"),
]
BaseUrl = Annotated[str, AfterValidator(lambda url: url and _check_base_url(url))]
Listen = Annotated[str, AfterValidator(_check_listen)]
TemplateName = Annotated[str, AfterValidator(_check_template)]
OptionalTemplate = Annotated[str, AfterValidator(lambda name: name and _check_template(name))]
JsonTable = Annotated[dict[str, Any], AfterValidator(_check_json)]
Place = Annotated[Path, PlainValidator(_place)]
"""A file or folder; a relative path starts at the folder of the configuration."""
_Name = Annotated[
    str,
    matching(NAME_PATTERN, "is not a name", "names are made of a-z, 0-9 and -"),
]
_Table = TypeVar("_Table", bound=NamedSection)
Named = Annotated[Mapping[_Name, _Table], BeforeValidator(_with_names)]
"""The tables `[KEY.NAME]`, by name."""
