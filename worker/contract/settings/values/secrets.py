"""Secrets of the configuration: read from variables or files, and never printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationInvalid

LITERAL: Final = "literal"
"""The origin of a secret that stands in the configuration itself."""
_ENVIRONMENT: Final = "env:"
_FILE: Final = "file:"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is sent but never shown.

    Args:
        origin: Where it comes from, for display: `env:NAME`, `file:PATH` or `literal`.
        value: None where it is not set.
        why_unset: For a person; "" where it is set.
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
        text: As it stands in the configuration.
        environ: The environment, with what `.env` adds.
        folder: What a relative PATH is relative to.

    Raises:
        ValueError: NAME or PATH is missing or can't be one.
    """
    if text.startswith(_ENVIRONMENT):
        return _from_environment(text, text.removeprefix(_ENVIRONMENT), environ)
    if text.startswith(_FILE):
        return _from_file(text, text.removeprefix(_FILE), folder)
    if not text.strip():
        return Secret(LITERAL, None, "the value is empty")
    return Secret(LITERAL, text)


def _from_environment(origin: str, name: str, environ: Mapping[str, str]) -> Secret:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{origin!r} does not name an environment variable")
    value = environ.get(name, "").strip()
    if value:
        return Secret(origin, value)
    return Secret(origin, None, f"the environment variable {name} is not set — set it, or add it"
                                " to the .env beside the configuration")  # fmt: skip


def _from_file(origin: str, path: str, folder: Path) -> Secret:
    if not path.strip():
        raise ValueError(f"{origin!r} does not name a file")
    file = folder / Path(path).expanduser()
    try:
        value = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not text"
        return Secret(origin, None, f"{file} can't be read: {reason}")
    if value:
        return Secret(origin, value)
    return Secret(origin, None, f"{file} is empty")
