"""The kinds of values that a configuration holds, read as a person writes them."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from worker.contract.problems import did_you_mean
from worker.contract.settings.values.durations import (
    format_duration,
    format_rate,
    parse_duration,
    parse_rate,
)
from worker.contract.settings.values.secrets import LITERAL, Secret, is_reference, read_secret
from worker.contract.settings.values.urls import masked, refuse_base_reason

EMBEDDED: Final = "embedded"
REDIS_SCHEMES: Final = (
    *("redis", "rediss", "redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
)
_LISTEN: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_HIGHEST_PORT: Final = 65_535
_DEEPEST_SETTINGS: Final = 50


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The environment and the folder that the values of a configuration file refer to.

    Args:
        environ: The environment, with what `.env` adds.
        folder: Of the file; relative paths start here.
    """

    environ: Mapping[str, str]
    folder: Path


class Frozen(BaseModel):
    """A frozen model that refuses unknown keys, and whose errors show no values."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


def wrong(message: str, hint: str = "") -> PydanticCustomError:
    """Return the error for a validator to raise, with a message and a hint for a person."""
    return PydanticCustomError("wrong", "{reason}", {"reason": message, "hint": hint})


def _from_file(info: ValidationInfo) -> bool:
    return isinstance(info.context, Surroundings)


def _parsed(
    parse: Callable[[str], float], hint: str
) -> Callable[[Any, ValidationInfo], Any]:  # fmt: skip
    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            try:
                return parse(value)
            except ValueError as error:
                raise wrong(str(error), hint) from None
        if _from_file(info):
            raise wrong("must be text in quotes", hint)
        return value

    return read


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
        raise wrong("must be text in quotes", "env:NAME, file:PATH or the value itself")
    surroundings = info.context
    if not isinstance(surroundings, Surroundings):
        return Secret(LITERAL, value)
    try:
        return read_secret(value, environ=surroundings.environ, folder=surroundings.folder)
    except ValueError as error:
        raise wrong(str(error), "write env:NAME or file:PATH") from None


def _read_redis_url(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if _from_file(info) and is_reference(value):
        secret = secret_of(value, info)
        if secret.value is None:
            raise wrong(f"{secret.origin}: {secret.why_unset}")
        value = secret.value
    if value in {"", EMBEDDED} or value.partition("://")[0] in REDIS_SCHEMES:
        return value
    near = did_you_mean(value, [EMBEDDED])
    schemes = ", ".join(f"{scheme}://" for scheme in REDIS_SCHEMES)
    raise wrong(
        "is not the URL of a Redis",
        near if "mean" in near else f'write "{EMBEDDED}" or {schemes}',
    )


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
    _refuse_what_json_lacks(value, 0)
    return value


def _refuse_what_json_lacks(value: Any, depth: int) -> None:
    if depth > _DEEPEST_SETTINGS:
        raise wrong("is nested too deeply")
    if isinstance(value, (dt.date, dt.time)):
        raise wrong("holds a date or time, which a template can't read", "put it in quotes")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong("holds a number that JSON does not have")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        _refuse_what_json_lacks(one, depth + 1)


def _check_relative(value: str) -> str:
    path = Path(value)
    if path.is_absolute() or ".." in path.parts:
        raise wrong("lies outside the templates folder", "name it as it lies below that folder")
    return value


def _check_template(value: str) -> str:
    return _check_relative(_check_trimmed(value))


Text = Annotated[str, AfterValidator(_check_trimmed)]
Whole = Annotated[int, Strict()]
Switch = Annotated[bool, Strict()]
Seconds = Annotated[
    float,
    BeforeValidator(_parsed(parse_duration, 'write it as "10s", "15m" or "90d"')),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
PerMinute = Annotated[
    float,
    BeforeValidator(_parsed(parse_rate, 'write it as "25000/min", "400/s" or "1000/h"')),
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
BaseUrl = Annotated[str, AfterValidator(_check_base_url)]
Listen = Annotated[str, AfterValidator(_check_listen)]
TemplateName = Annotated[Text, AfterValidator(_check_relative)]
OptionalTemplate = Annotated[str, AfterValidator(lambda name: name and _check_template(name))]
JsonTable = Annotated[dict[str, Any], AfterValidator(_check_json)]
