"""The findings of reading people back from Insider: attributes that were sent and are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings

FORGOTTEN_AFTER: Final = 10
"""The people in a row to whom an attribute was not sent, after whom it counts as left out."""


@dataclass(frozen=True, slots=True)
class MissingAttribute:
    """An attribute that was sent and that Insider did not hold when people were read back.

    Args:
        trigger: The last trigger that sent it.
        people: The number of people in a row who lacked it.
        since_ms: The time at which the first of them was read; Redis' clock.
        unsent: The number of people who were read since, and to whom it was not sent.
    """

    trigger: str
    people: int
    since_ms: int
    unsent: int = 0


@dataclass(slots=True)
class ReadBacks:
    """The findings at one destination.

    Args:
        read: The number of people who were read back.
        missing: By the name of the attribute; "" = Insider did not know the person.
        failures: Steps in a row in which nobody could be read.
        problem: The problem that stopped the last of them.
        is_proven: Some attribute was there that had been sent, so that reading works.
    """

    read: int = 0
    missing: dict[str, MissingAttribute] = field(default_factory=dict)
    failures: int = 0
    problem: str = ""
    is_proven: bool = False

    def dumps(self) -> bytes:
        """Return the text that Redis keeps."""
        return orjson.dumps(asdict(self))

    @classmethod
    def loads(cls, text: bytes) -> Self:
        """Read the findings that `dumps` wrote; b"" = nobody was read back yet."""
        told = orjson.loads(text or b"{}")
        missing = {name: MissingAttribute(**one) for name, one in told.pop("missing", {}).items()}
        return cls(**told, missing=missing)

    def add(self, trigger: str, sent: Sequence[str], lacking: set[str], now_ms: int) -> None:
        """Add the result of one person: the names that were sent, and those that were not there."""
        self.read += 1
        self.is_proven |= any(name and name not in lacking for name in sent)
        for name in self.missing.keys() - set(sent):
            one = self.missing.pop(name)
            if one.unsent + 1 < FORGOTTEN_AFTER:
                self.missing[name] = replace(one, unsent=one.unsent + 1)
        for name in sent:
            before = self.missing.pop(name, None)
            if name in lacking:
                people, since_ms = (before.people, before.since_ms) if before else (0, now_ms)
                self.missing[name] = MissingAttribute(trigger, people + 1, since_ms)


def read_read_backs(client: Redis, settings: Settings) -> Mapping[str, ReadBacks]:
    """Return the findings at each destination where people are read back."""
    names = [name for name, one in settings.destinations.items() if one.is_read_back]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hget(keys.read_back(settings.redis.ids.of(name)), "state")
    texts: list[Any] = pipe.execute() if names else []
    return {name: ReadBacks.loads(text) for name, text in zip(names, texts, strict=True)}
