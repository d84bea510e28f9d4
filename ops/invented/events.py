"""Invented entrances and exits of invented people, their payloads, and the expected result."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from ops.invented.people import invented_person

AUDIENCES: Final = ("vip", "newsletter", "cart-abandoners")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US: Final = 86_400_000_000
_BETWEEN_US: Final = 1_000
_OPPOSITE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Happening:
    """One person entering or leaving one audience at one time."""

    email: str
    audience: str
    is_exit: bool
    time_us: int


def happenings(
    rng: random.Random,
    *,
    events: int,
    people: int,
    ties: float = 0.02,
    audiences: Sequence[str] = AUDIENCES,
) -> list[Happening]:
    """Invent entrances and exits within the last day, in the order of their times.

    The share `ties` has the time of the one before, of the same person and audience, and the
    other direction: then the exit holds.
    """
    start_us = int(datetime.now(UTC).timestamp() * 1_000_000) - _DAY_US
    times = sorted(rng.sample(range(start_us, start_us + _DAY_US - 1_000_000_000), events))
    result: list[Happening] = []
    for time_us in times:
        if result and rng.random() < ties:
            last = result[-1]
            result.append(Happening(last.email, last.audience, not last.is_exit, last.time_us))
            continue
        email = f"person{rng.randrange(people)}@example.com"
        result.append(Happening(email, rng.choice(audiences), rng.choice((True, False)), time_us))
    return result


def reevaluations(
    rng: random.Random, *, rounds: int, people: int, audiences: Sequence[str]
) -> list[list[Happening]]:
    """Invent rounds in which one person enters or leaves many audiences at about one time.

    Everybody enters in their first round and leaves in the second, and so on; one audience of ten
    does the opposite. The rounds lie within the last day, in the order of their times.
    """
    start_us = int(datetime.now(UTC).timestamp() * 1_000_000) - _DAY_US
    times = sorted(rng.sample(range(start_us, start_us + _DAY_US - 1_000_000_000), rounds))
    result = []
    for number, time_us in enumerate(times):
        round_of_person, person = divmod(number, people)
        result.append(
            [
                Happening(
                    f"person{person}@example.com",
                    audience,
                    is_exit=bool(round_of_person % 2) != (rng.random() < _OPPOSITE_SHARE),
                    time_us=time_us + _BETWEEN_US * at,
                )
                for at, audience in enumerate(audiences)
            ]
        )
    return result


def newest_of(happened: list[Happening]) -> dict[tuple[str, str], Happening]:
    """Return the newest event of each person and audience; at equal times it is the exit."""
    newest: dict[tuple[str, str], Happening] = {}
    for event in happened:
        key = (event.email, event.audience)
        old = newest.get(key)
        if old is None or (event.time_us, event.is_exit) > (old.time_us, old.is_exit):
            newest[key] = event
    return newest


def truth(happened: list[Happening]) -> dict[str, list[str]]:
    """Return the audiences that each person is in after all events."""
    held: dict[str, list[str]] = {}
    for event in newest_of(happened).values():
        if not event.is_exit:
            held.setdefault(event.email, []).append(event.audience)
    return {email: sorted(audiences) for email, audiences in held.items()}


@dataclass(frozen=True, slots=True)
class MembershipSnapshot:
    """The audiences that one person was in at one time.

    Args:
        inside: Whether the person is in each audience that they entered or left before.
    """

    email: str
    time_us: int
    inside: Mapping[str, bool]


def snapshots(
    rng: random.Random, happened: list[Happening], *, count: int
) -> list[MembershipSnapshot]:
    """Invent snapshots of people, each right after an event.

    They tell nothing new: the truth about what happened stays the truth.
    """
    of_person: dict[str, list[Happening]] = {}
    for event in happened:
        of_person.setdefault(event.email, []).append(event)
    result = []
    for event in rng.choices(happened, k=count):
        time_us = event.time_us + 1
        before = [each for each in of_person[event.email] if each.time_us <= time_us]
        inside = {audience: not e.is_exit for (_, audience), e in newest_of(before).items()}
        result.append(MembershipSnapshot(event.email, time_us, inside))
    return result


def lists(happened: list[Happening]) -> dict[Happening, list[str]]:
    """Return the person's list of audiences right after each event, as the source saw it."""
    held: dict[str, set[str]] = {}
    result: dict[Happening, list[str]] = {}
    for event in sorted(happened, key=lambda each: (each.time_us, each.is_exit)):
        audiences = held.setdefault(event.email, set())
        if event.is_exit:
            audiences.discard(event.audience)
        else:
            audiences.add(event.audience)
        result[event] = sorted(audiences)
    return result


def payloads(
    happened: list[Happening],
    *,
    profile_bytes: int = 1_000,
    fields: int = 0,
    segments: Mapping[Happening, list[str]] | None = None,
) -> Iterator[bytes]:
    """Yield the payload of each event, with a profile of about this size.

    Args:
        happened: The events in the order in which they are sent.
        profile_bytes: Padded to that.
        fields: The fewest fields of a profile; added ones share its size.
        segments: Audiences of the profile at each of them (`_segments`).
    """
    for number, event in enumerate(happened):
        payload = _payload(number, event, profile_bytes, fields)
        if segments is not None:
            payload["data"]["_segments"] = segments[event]
        yield orjson.dumps(payload)


def snapshot_payloads(
    seen: list[MembershipSnapshot], *, with_segments: bool = False
) -> Iterator[bytes]:
    """Yield the payload of each snapshot, with an event for each of its audiences."""
    for number, snapshot in enumerate(seen):
        told = [
            Happening(snapshot.email, audience, not is_inside, snapshot.time_us)
            for audience, is_inside in snapshot.inside.items()
        ]
        payload = _payload(number, told[0])
        payload["data"]["segment_events"] = [_segment_event(event) for event in told]
        if with_segments:
            inside = sorted(audience for audience, held in snapshot.inside.items() if held)
            payload["data"]["_segments"] = inside
        yield orjson.dumps(payload)


def _segment_event(event: Happening) -> dict[str, str]:
    kind = "exit" if event.is_exit else "enter"
    return {
        "id": f"{zlib.crc32(event.audience.encode()):032x}",
        "slug": event.audience,
        "event": kind,
        kind: _moment(event).replace("+00:00", "000Z"),
    }


def _moment(event: Happening) -> str:
    return (_EPOCH + timedelta(microseconds=event.time_us)).isoformat(timespec="microseconds")


def people_at_lytics(count: int) -> list[dict[str, Any]]:
    """Return profiles as Lytics has them, each with a `_uid` and in no audience."""
    return [
        {"_uid": f"u{person}", **invented_person(person), "segments": []} for person in range(count)
    ]


def _payload(
    number: int, event: Happening, profile_bytes: int = 1_000, fields: int = 0
) -> dict[str, Any]:
    person = int(event.email.removeprefix("person").partition("@")[0])
    data = {**invented_person(person), "segment_events": [_segment_event(event)]}
    missing = range(len(data), fields)
    each = (profile_bytes - len(orjson.dumps(data))) // max(1, len(missing))
    data |= {f"field_{at:03}": f"{at:0{max(1, each - 14)}}" for at in missing}
    padding = profile_bytes - len(orjson.dumps(data))
    if padding > 0:
        data["last_pages"] = ["/p/" + "x" * 47] * (padding // 53)
    stamp = {"object": "user", "subscription_id": "f" * 32, "timestamp": _moment(event)}
    return {"id": str(number), "data": data, "meta": stamp}
