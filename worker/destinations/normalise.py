"""Normalises values as Insider's documentation demands; None = a value can't be normalised.

Pure, called some ten thousand times a second: what is right already passes on a fast path, and
what costs a look-up is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
import phonenumbers

from segrelay.worker.destinations.phones import valid_e164

_REGION: Final = re.compile(r"([A-Z]{2}):")
_COLON: Final = slice(2, 3)
_EMAIL: Final = re.compile(r".+@.+\..+")
_LOCALE: Final = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}")
_NUMBERS: Final = (int, float, bool)
_STATED: Final = {
    **dict.fromkeys(("t", "true", "1", "yes", "y", "on"), True),
    **dict.fromkeys(("f", "false", "0", "no", "n", "off"), False),
}
_OLDEST_AGE: Final = 150
_SECONDS_END: Final = len("2026-01-02T03:04:05")
_FRACTION_END: Final = len("2026-01-02T03:04:05.000006")
_OTHER_LANGUAGE_CODES: Final = {"iw": "he", "in": "id", "ji": "yi", "fil": "tl"}
"""The two-letter codes that Insider takes, for older codes and for Filipino's three letters."""
_LATIN_AMERICA: Final = "419"
_LATIN_AMERICAN: Final = {"es": "MX"}
"""The country with most speakers, for the Latin American form of a language from elsewhere."""
_REMEMBERED: Final = 8_192
_EMAILS_REMEMBERED: Final = 64
"""Most bodies have the same address twice, as an identifier and as an attribute."""


def load_tables() -> None:
    """Load the tables of countries, languages and phone numbers ahead of the first look-up.

    A process that is forked afterwards has them already.
    """
    country("US")
    language("en-US")
    phone("+14155552671", "US")


def is_empty(value: Any) -> bool:
    """Return whether a value is empty: null, blank text, or a container of nothing else."""
    if type(value) is str:
        return not value.strip()
    return pruned(value) is None


def pruned(value: Any) -> Any:
    """Return a JSON value without what is empty inside; None if nothing is left."""
    kind = type(value)
    if kind is str:
        return value or None
    if kind is dict:
        return _pruned_object(value) or None
    if kind is list:
        return [left for item in value if (left := pruned(item)) is not None] or None
    return value


def _pruned_object(value: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, item in value.items():
        kind = type(item)
        if kind is str:
            if item:
                kept[key] = item
        elif item is None:
            continue
        elif kind in _NUMBERS:
            kept[key] = item
        elif (left := pruned(item)) is not None:
            kept[key] = left
    return kept


def text(value: Any) -> str | None:
    """Return trimmed text; a whole number becomes text."""
    if type(value) is str:
        return value.strip() or None
    if type(value) is int:
        return str(value)
    if type(value) is float and value.is_integer():
        return str(int(value))
    return None


def email(value: Any) -> str | None:
    """Return a trimmed address in lower case."""
    return _address(value) if type(value) is str else None


@lru_cache(_EMAILS_REMEMBERED)
def _address(written: str) -> str | None:
    address = written.strip().lower()
    return address if _EMAIL.fullmatch(address) else None


def phone(value: Any, region: str) -> str | None:
    """Return a number in E.164 form; one without a country code is of the region.

    The number may name its region itself, `DE:0171 2345678`, as `insider.phone` writes it.

    A number that no country gives out (`9999999999`) is a stopgap that many people share, and as an
    identifier it would make them one person.
    """
    number = text(value)
    if number is None:
        return None
    is_named = number[_COLON] == ":"
    if is_named and (own := _REGION.match(number)) and own[1] in phonenumbers.SUPPORTED_REGIONS:
        return valid_e164(number[own.end() :], own[1])
    return valid_e164(number, region)


def age(value: Any) -> int | float | None:
    """Return a number of years."""
    years = value
    if type(value) is str:
        try:
            years = float(value)
        except ValueError:
            return None
    if type(years) not in (int, float) or not 0 <= years <= _OLDEST_AGE:
        return None
    return int(years) if years == int(years) else years


def contact_lists(value: Any) -> list[int] | None:
    """Return the numbers of contact lists; a single number becomes a list."""
    given = value if type(value) is list else [value]
    numbers = [_whole(item) for item in given if not is_empty(item)]
    right = [number for number in numbers if number is not None]
    return right if right and len(right) == len(numbers) else None


def _whole(value: Any) -> int | None:
    written = text(value)
    return int(written) if written is not None and _WHOLE.fullmatch(written) else None


def birthday(value: Any) -> str | None:
    """Return the day as RFC 3339 ending in Z; the day is kept, whatever the offset."""
    if type(value) is not str:
        return None
    written = value.strip()
    try:
        if _DAY.fullmatch(written):
            return f"{date.fromisoformat(written)}T00:00:00Z"
        moment = datetime.fromisoformat(written.upper())
    except ValueError:
        return None
    if moment.utcoffset():
        return f"{moment.date()}T00:00:00Z"
    return f"{moment.date()}T{moment.time():%H:%M:%S}Z"


def instant(value: Any) -> datetime | None:
    """Read an RFC 3339 time with an offset; digits beyond the microsecond are cut."""
    if type(value) is not str:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = datetime.fromisoformat(value.strip().upper())
        except ValueError:
            return None
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC) if moment.tzinfo else None
    except OverflowError:
        return None


def timestamp(moment: datetime, written: Any = None) -> str:
    """Write a UTC time as RFC 3339, with six fraction digits or none, ending in Z.

    Args:
        moment: The time.
        written: The text of which `instant` made it; None = there is none. Cutting a text of the
            right form after six digits takes less time than writing the moment.
    """
    if moment.microsecond and type(written) is str and _is_in_full(written):
        return f"{written[:_FRACTION_END]}Z"
    return moment.isoformat()[:-6] + "Z"


def _is_in_full(written: str) -> bool:
    """Say whether the text of a valid time is like `2026-01-02T03:04:05.000006Z`, or longer."""
    return (
        len(written) > _FRACTION_END
        and written[4] == written[7] == "-"
        and written[10] == "T"
        and written[13] == written[16] == ":"
        and written[_SECONDS_END] == "."
        and written[-1] == "Z"
    )


def boolean(value: Any) -> bool | None:
    """Return true or false if a value clearly states it, else None."""
    if type(value) is bool:
        return value
    if type(value) is str:
        return _STATED[value] if value in _STATED else _STATED.get(value.strip().lower())
    return _STATED.get(str(value)) if type(value) is int else None


def country(value: Any) -> str | None:
    """Return the ISO 3166-1 alpha-2 code of a code or an English name."""
    return _country(value) if type(value) is str else None


@lru_cache(_REMEMBERED)
def _country(given: str) -> str | None:
    written = given.strip()
    return _countries().get(written.casefold())


@cache
def _countries() -> Mapping[str, str]:
    """Return country codes by all codes and names of ISO and CLDR, and by two more for Britain."""
    named = {
        name.casefold(): code for code, names in _tables()["countries"].items() for name in names
    }
    return named | {"uk": "GB", "great britain": "GB", "turkey": "TR"}


@cache
def _languages() -> Mapping[str, str]:
    """Return two-letter codes of languages by all their codes, and by their English names."""
    return {
        name.casefold(): code for code, names in _tables()["languages"].items() for name in names
    }


@cache
def _tables() -> Mapping[str, Any]:
    """Return the tables that `make docs` makes of libraries with 57 MB of translations."""
    tables: Mapping[str, Any] = orjson.loads(Path(__file__).with_name("regions.json").read_bytes())
    return tables


def language(value: Any) -> str | None:
    """Return the `en_US` form of a locale, a language code or an English name of a language.

    A language alone, or of a part of the world (`en-001`), gets the country where CLDR says that it
    is most likely spoken.
    """
    return _language(value) if type(value) is str else None


@lru_cache(_REMEMBERED)
def _language(given: str) -> str | None:
    written = given.strip()
    parts = _LOCALE.fullmatch(written)
    spoken, script, territory = parts.groups() if parts else (written, None, None)
    code = _language_code(spoken)
    if code is None:
        return None
    if territory == _LATIN_AMERICA and code in _LATIN_AMERICAN:
        return f"{code}_{_LATIN_AMERICAN[code]}"
    if territory is None or territory.isdecimal():
        country_code = _likely_territory(code, script)
    else:
        country_code = territory.upper() if territory.upper() in _tables()["countries"] else None
    return f"{code}_{country_code}" if country_code else None


def _language_code(spoken: str) -> str | None:
    wanted = spoken.casefold()
    return _languages().get(_OTHER_LANGUAGE_CODES.get(wanted, wanted))


def _likely_territory(code: str, script: str | None) -> str | None:
    likely = _tables()["likely"]
    found = (script and likely.get(f"{code}_{script.title()}")) or likely.get(code)
    return str(found) if found else None
