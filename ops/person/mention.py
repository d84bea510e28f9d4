"""`Mention`: whether a text of any kind mentions a person.

Of a former identity only its digest is known, so words of the text are digested to find it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from worker.contract.keys import digest_of

_WORD: Final = re.compile(r"[^\s\"',;:<>|{}\[\]()\\\\=&]+")
_EMAIL: Final = "email"


@dataclass(frozen=True, slots=True)
class Mention:
    """The names by which a person is mentioned in Redis and files.

    Args:
        digests: Under which the person is or was known.
        identity: The configured identity field.
        values: Of the identity, as far as they are known.
    """

    digests: frozenset[bytes]
    identity: str
    values: Sequence[str]

    def stands_in(self, text: bytes) -> bool:
        """Say whether a text has a value of the identity, or a digest, in hexadecimal notation."""
        plain = _plain(text)
        lower = plain.lower()
        return any(value.lower() in lower for value in self.values) or any(
            word in self._hexadecimal or digest_of(f"{self.identity}:{word}") in self.digests
            for word in self._words(plain)
        )

    @property
    def _hexadecimal(self) -> frozenset[str]:
        return frozenset(digest.hex() for digest in self.digests)

    def _words(self, text: str) -> Iterable[str]:
        return set(_WORD.findall(text.lower() if self.identity == _EMAIL else text))


def value_of(profile_key: str) -> str:
    """Return the value of the identity in the key of a profile."""
    return profile_key.partition(":")[2]


def _plain(text: bytes) -> str:
    """Return a text without the escapes of JSON, as far as it is JSON."""
    try:
        return orjson.dumps(orjson.loads(text)).decode()
    except orjson.JSONDecodeError:
        return text.decode(errors="replace")
