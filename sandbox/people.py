"""Invented people, what happens to them, its payloads, and the memberships that follow from it.

A number always gives the same person, with the fields of a profile at Lytics. Phone numbers lie in
ranges that are kept free for fiction, so that nobody is ever called. Two in a hundred numbers are
wrong, and one name in twenty is not ASCII, as it is with real people.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
import phonenumbers

_FIRST: Final = (
    "Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon", "Kim", "Lea",
    "Max", "Nora", "Otis", "Pia", "Quinn", "Rosa", "Sam", "Tara", "Uma", "Vera", "Walt", "Yara",
)  # fmt: skip
_LAST: Final = (
    "Archer", "Baker", "Cooper", "Draper", "Fisher", "Mason", "Potter", "Weaver", "Carter",
    "Dyer", "Glover", "Miller", "Parker", "Sawyer", "Thatcher", "Turner", "Wheeler",
)  # fmt: skip
_UNICODE: Final = (
    ("Zoë", "Müller"), ("Łukasz", "Żak"), ("Søren", "Bjørk"), ("José", "Núñez"),
    ("Chloé", "Lefèvre"), ("Иван", "Лебедев"), ("美咲", "高橋"), ("Đặng", "Nguyễn"),
    ("Ελένη", "Νικολάου"), ("Şebnem", "Güneş"),
)  # fmt: skip
_SCORES: Final = ("consistency", "frequency", "intensity", "momentum", "recency", "volatility")
_OF_A_HUNDRED_WRONG_PHONES: Final = 2
_OF_A_HUNDRED_UNICODE: Final = 5
_FIRST_ACCOUNT: Final = datetime(2018, 1, 1, tzinfo=UTC)
_TIERS: Final = ("", "bronze", "silver", "gold")


class _Home(NamedTuple):
    """A country in which people live.

    Attributes:
        country: The country as the source writes it, which is not always a code.
        phones: The beginnings of numbers that are kept for fiction, with how many digits follow.
    """

    country: str
    locale: str
    cities: tuple[str, ...]
    phones: tuple[tuple[str, int], ...]


_WEIGHTS: Final = (60, 10, 12, 9, 9)
"""The number of people of a hundred who live in each of the homes."""


@cache
def _homes() -> tuple[_Home, ...]:
    # 555-01XX of each area of the United States, and the like of others.
    areas = (f"+1{area}55501" for area in range(200, 1000))
    in_america = tuple((begin, 2) for begin in areas if _is_valid(f"{begin}00", "US"))
    british = (
        "1134960", "1144960", "1164960", "1174960", "1214960", "1314960", "1414960", "1514960",
        "1614960", "2079460", "1914980", "2890180", "2920180",
    )  # fmt: skip
    french = ("+3319900", "+3326191", "+3335301", "+3346571", "+3353649")
    german = (("+493023125", 3), ("+492214710", 3), ("+498999998", 3), ("+49171392001", 1))
    american = ("Portland", "Springfield", "Austin", "Denver")
    return (
        _Home("US", "en_US", american, in_america),
        _Home("United States", "en-us", american, in_america),
        _Home("GB", "en_GB", ("London", "Leeds"), tuple((f"+44{b}", 3) for b in british)),
        _Home("FR", "fr_FR", ("Lyon", "Paris"), tuple((begin, 4) for begin in french)),
        _Home("Germany", "de", ("Berlin", "München"), german),
    )


def _is_valid(number: str, region: str) -> bool:
    parsed = phonenumbers.parse(number)
    return phonenumbers.is_valid_number_for_region(parsed, region)


def invented_person(number: int) -> dict[str, Any]:
    """Return the profile of an invented person: 29 fields, no events."""
    chance = random.Random(number)  # noqa: S311 - the same person each time
    [home] = chance.choices(_homes(), _WEIGHTS)
    unusual = chance.randrange(100) < _OF_A_HUNDRED_UNICODE
    names = chance.choice(_UNICODE) if unusual else (chance.choice(_FIRST), chance.choice(_LAST))
    born = _FIRST_ACCOUNT - timedelta(days=6_600 + chance.randrange(19_000))
    created = _FIRST_ACCOUNT + timedelta(seconds=chance.randrange(200_000_000))
    active = created + timedelta(seconds=chance.randrange(40_000_000))
    purchases = chance.randrange(12)
    return {
        "_id": str(1_000_000_000_000_000_000 + number),
        "email": f"person{number}@example.com",
        "phone": _phone(chance, home),
        "first_name": names[0],
        "last_name": names[1],
        "gender": chance.choice(("F", "M", "")),
        "age": str((active - born).days // 366),
        "birthday": born.date().isoformat(),
        "user_language": home.locale,
        "visit_country": home.country,
        "visit_city": chance.choice(home.cities),
        "consent_email_status": "t" if number % 3 else "f",
        "consent_sms_status": chance.choice(("t", "f", "")),
        "consent_whatsapp_status": "f",
        "consent_gdpr_status": "t",
        "is_mobile": chance.choice(("t", "f")),
        "status": "active",
        "created": _written(created),
        "last_active": _written(active),
        "last_purchase": active.date().isoformat() if purchases else "",
        "purchases": purchases,
        "lifetime_value": purchases * (500 + chance.randrange(9_000)) / 100,
        "loyalty_tier": chance.choice(_TIERS),
        **{f"score_{name}": (number * 7 + at) % 100 for at, name in enumerate(_SCORES)},
    }


def _written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _phone(chance: random.Random, home: _Home) -> str:
    if chance.randrange(100) < _OF_A_HUNDRED_WRONG_PHONES:
        wrong = chance.randrange(10**7)
        return (f"+1555{wrong:07}", "9999999999", "n/a", f"(555) {wrong % 10_000:04}")[wrong % 4]
    begin, digits = chance.choice(home.phones)
    return f"{begin}{chance.randrange(10**digits):0{digits}}"


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
        inside: The membership in each audience that they entered or left before.
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


def payloads(
    happened: list[Happening],
    *,
    profile_bytes: int = 1_000,
    fields: int = 0,
) -> Iterator[bytes]:
    """Yield the payload of each event, with a profile of about this size.

    Args:
        happened: The events in the order in which they are sent.
        profile_bytes: The size to which profiles are padded, in bytes.
        fields: The fewest fields of a profile; added ones share its size.
    """
    for number, event in enumerate(happened):
        yield orjson.dumps(_payload(number, event, profile_bytes, fields))


def snapshot_payloads(seen: list[MembershipSnapshot]) -> Iterator[bytes]:
    """Yield the payload of each snapshot, with an event for each of its audiences."""
    for number, snapshot in enumerate(seen):
        told = [
            Happening(snapshot.email, audience, not is_inside, snapshot.time_us)
            for audience, is_inside in snapshot.inside.items()
        ]
        payload = _payload(number, told[0])
        payload["data"]["segment_events"] = [_segment_event(event) for event in told]
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
