"""Invented people with the fields of profiles at Lytics; a number always gives the same one.

Their phone numbers lie in ranges that are kept free for fiction, so that nobody is ever called.
Two in a hundred numbers are wrong, and one name in twenty is not ASCII, as it is with real people.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

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
_ODD: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
_FIRST_ACCOUNT: Final = datetime(2018, 1, 1, tzinfo=UTC)
_TIERS: Final = ("", "bronze", "silver", "gold")


_T = TypeVar("_T")


class _Chance:
    """A random generator with a seed, ten times as fast as `random.Random`."""

    def __init__(self, seed: int) -> None:
        self._state = (seed + 1) * _ODD & _MASK

    def below(self, end: int) -> int:
        """Return a whole number from 0, below the end."""
        self._state = mixed = (self._state + _ODD) & _MASK
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        return (mixed ^ mixed >> 27) % end

    def one_of(self, values: Sequence[_T]) -> _T:
        """Return one of several values."""
        return values[self.below(len(values))]


class _Home(NamedTuple):
    """A country in which people live.

    Attributes:
        country: The country as the source writes it, which is not always a code.
        phones: Beginnings of numbers that are kept for fiction, with how many digits follow.
        weight: The number of people of a hundred who live there.
    """

    country: str
    locale: str
    cities: tuple[str, ...]
    phones: tuple[tuple[str, int], ...]
    weight: int


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
        _Home("US", "en_US", american, in_america, 60),
        _Home("United States", "en-us", american, in_america, 10),
        _Home("GB", "en_GB", ("London", "Leeds"), tuple((f"+44{b}", 3) for b in british), 12),
        _Home("FR", "fr_FR", ("Lyon", "Paris"), tuple((begin, 4) for begin in french), 9),
        _Home("Germany", "de", ("Berlin", "München"), german, 9),
    )


def _is_valid(number: str, region: str) -> bool:
    parsed = phonenumbers.parse(number)
    return phonenumbers.is_valid_number_for_region(parsed, region)


@cache
def _streets() -> tuple[_Home, ...]:
    """Return the homes, each as often as its weight."""
    return tuple(home for home in _homes() for _ in range(home.weight))


def invented_person(number: int) -> dict[str, Any]:
    """Return the profile of an invented person: 29 fields, no events."""
    chance = _Chance(number)
    home = chance.one_of(_streets())
    unusual = chance.below(100) < _OF_A_HUNDRED_UNICODE
    names = chance.one_of(_UNICODE) if unusual else (chance.one_of(_FIRST), chance.one_of(_LAST))
    born = _FIRST_ACCOUNT - timedelta(days=6_600 + chance.below(19_000))
    created = _FIRST_ACCOUNT + timedelta(seconds=chance.below(200_000_000))
    active = created + timedelta(seconds=chance.below(40_000_000))
    purchases = chance.below(12)
    return {
        "_id": str(1_000_000_000_000_000_000 + number),
        "email": f"person{number}@example.com",
        "phone": _phone(chance, home),
        "first_name": names[0],
        "last_name": names[1],
        "gender": chance.one_of(("F", "M", "")),
        "age": str((active - born).days // 366),
        "birthday": born.date().isoformat(),
        "user_language": home.locale,
        "visit_country": home.country,
        "visit_city": chance.one_of(home.cities),
        "consent_email_status": "t" if number % 3 else "f",
        "consent_sms_status": chance.one_of(("t", "f", "")),
        "consent_whatsapp_status": "f",
        "consent_gdpr_status": "t",
        "is_mobile": chance.one_of(("t", "f")),
        "status": "active",
        "created": _written(created),
        "last_active": _written(active),
        "last_purchase": active.date().isoformat() if purchases else "",
        "purchases": purchases,
        "lifetime_value": purchases * (500 + chance.below(9_000)) / 100,
        "loyalty_tier": chance.one_of(_TIERS),
        **{f"score_{name}": (number * 7 + at) % 100 for at, name in enumerate(_SCORES)},
    }


def _written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _phone(chance: _Chance, home: _Home) -> str:
    if chance.below(100) < _OF_A_HUNDRED_WRONG_PHONES:
        wrong = chance.below(10**7)
        return (f"+1555{wrong:07}", "9999999999", "n/a", f"(555) {wrong % 10_000:04}")[wrong % 4]
    begin, digits = chance.one_of(home.phones)
    return f"{begin}{chance.below(10**digits):0{digits}}"
