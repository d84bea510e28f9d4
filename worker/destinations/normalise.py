"""Normalises values and fields of a user as Insider's documentation demands.

None = a value can't be normalised. The functions of fields append to `dropped` the name of what
could not be right; what is merely empty is left out silently.

Pure, called some ten thousand times a second: what is right already passes on a fast path, and
what costs a look-up is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import phonenumbers
from phonenumbers import PhoneMetadata

_REGION: Final = re.compile(r"([A-Z]{2}):")
_COLON: Final = slice(2, 3)
_EMAIL: Final = re.compile(r".+@.+\..+")
_LOCALE: Final = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}")
_STATED: Final = {
    **dict.fromkeys(("t", "true", "1", "yes", "y", "on"), True),
    **dict.fromkeys(("f", "false", "0", "no", "n", "off"), False),
}
_OLDEST_AGE: Final = 150
_OTHER_LANGUAGE_CODES: Final = {"iw": "he", "in": "id", "ji": "yi", "fil": "tl"}
"""The two-letter codes that Insider takes, for older codes and for Filipino's three letters."""
_LATIN_AMERICA: Final = "419"
_LATIN_AMERICAN: Final = {"es": "MX"}
"""The country with most speakers, for the Latin American form of a language from elsewhere."""
_MORE_COUNTRIES: Final = {"uk": "GB", "great britain": "GB", "turkey": "TR"}
_REMEMBERED: Final = 8_192
_EMAILS_REMEMBERED: Final = 64
"""The number of addresses that are remembered: most bodies have the same one twice."""
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_DIGIT: Final = re.compile(r"\d")
_CALLING_CODES: Final = {str(code): code for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE}
_CALLING_CODE_LENGTHS: Final = (1, 2, 3)
"""The lengths of calling codes, in digits; no calling code begins with another one."""
_TYPES: Final = (
    "mobile", "fixed_line", "toll_free", "premium_rate", "shared_cost", "voip",
    "personal_number", "pager", "uan", "voicemail",
)  # fmt: skip
_NEVER: Final = r"(?!)"


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
        kept = {key: left for key, item in value.items() if (left := pruned(item)) is not None}
        return kept or None
    if kind is list:
        return [left for item in value if (left := pruned(item)) is not None] or None
    return value


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


@lru_cache(_REMEMBERED)
def valid_e164(number: str, region: str) -> str | None:
    """Return a number in E.164 form, or None if it is not valid in any country.

    `phonenumbers` says so; of what is in E.164 form already, its own rules, compiled once, say that
    it is valid ten times as fast.

    Args:
        number: The number with a country code (`+` or `00`), or as it is dialled within the region.
        region: The region's ISO 3166-1 alpha-2 code.
    """
    international = "+" + number[2:] if number.startswith("00") else number
    if _E164.fullmatch(international):
        for length in _CALLING_CODE_LENGTHS:
            code = _CALLING_CODES.get(international[1 : 1 + length])
            if code and _valid_numbers(code).fullmatch(international, 1 + length):
                return international
    return by_library(international, region) if _DIGIT.search(international) else None


def by_library(number: str, region: str) -> str | None:
    """Return a number as `phonenumbers` writes it in E.164; None where it is not valid."""
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    written = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return written if _E164.fullmatch(written) else None


@cache
def _valid_numbers(code: int) -> re.Pattern[str]:
    """Return a pattern of valid significant numbers of a calling code: of those without a prefix.

    The first region that claims a number by its first digits decides about it; one that claims
    none takes whatever is valid there.
    """
    written = _NEVER
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]
    rules_of: Callable[[int, str], Any] = PhoneMetadata.metadata_for_region_or_calling_code
    all_rules = [rules_of(code, region) for region in regions]
    for metadata in reversed([rules for rules in all_rules if rules]):
        kinds = (getattr(metadata, name) for name in _TYPES)
        patterns = [_matching(kind) for kind in kinds if kind and kind.national_number_pattern]
        some = "|".join(dict.fromkeys(patterns)) or _NEVER
        valid = f"(?={_matching(metadata.general_desc)})(?:{some})"
        lead = metadata.leading_digits
        if lead is not None and len(regions) > 1:
            written = f"(?={lead})(?:{valid})|(?!{lead})(?:{written})"
        else:
            written = f"{valid}|{written}"
    # The library takes a prefix away, wherever the number looks right without it.
    prefix = all_rules[0].national_prefix_for_parsing or _NEVER
    return re.compile(f"(?!{prefix})(?:{written})")


def _matching(desc: Any) -> str:
    """Return the pattern of the numbers that a description allows, with their possible lengths."""
    lengths = "|".join(rf"\d{{{length}}}" for length in desc.possible_length if length > 0)
    possible = rf"(?=(?:{lengths or _NEVER})\Z)" if desc.possible_length else ""
    return rf"{possible}(?:{desc.national_number_pattern or _NEVER})\Z"


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


def timestamp(moment: datetime) -> str:
    """Write a UTC time as RFC 3339, with six fraction digits or none, ending in Z."""
    return moment.isoformat()[:-6] + "Z"


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
    return _codes("countries").get(given.strip().casefold())


@cache
def _codes(kind: Literal["countries", "languages"]) -> Mapping[str, str]:
    """Return two-letter codes by all codes of ISO and names of CLDR, and by some more names."""
    named = {name.casefold(): code for code, names in _tables()[kind].items() for name in names}
    return named | (_MORE_COUNTRIES if kind == "countries" else {})


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
    wanted = spoken.casefold()
    code = _codes("languages").get(_OTHER_LANGUAGE_CODES.get(wanted, wanted))
    if code is None:
        return None
    if territory == _LATIN_AMERICA and code in _LATIN_AMERICAN:
        return f"{code}_{_LATIN_AMERICAN[code]}"
    if territory is None or territory.isdecimal():
        country_code = _likely_territory(code, script)
    else:
        country_code = territory.upper() if territory.upper() in _tables()["countries"] else None
    return f"{code}_{country_code}" if country_code else None


def _likely_territory(code: str, script: str | None) -> str | None:
    likely = _tables()["likely"]
    found = (script and likely.get(f"{code}_{script.title()}")) or likely.get(code)
    return str(found) if found else None


OPT_INS: Final = ("email_optin", "sms_optin", "whatsapp_optin", "gdpr_optin")
DEFAULT_ATTRIBUTES: Final[dict[str, Callable[[Any], Any]]] = {
    "email": email,
    "name": text,
    "surname": text,
    "city": text,
    "uuid": text,
    "gender": text,
    "age": age,
    "birthday": birthday,
    "language": language,
    "country": country,
    "lo": text,
    "app_version": text,
    "static_segment_id": contact_lists,
    "list_id": contact_lists,
    **dict.fromkeys(OPT_INS, boolean),
}
PHONE: Final = "phone_number"
OBJECT_ATTRIBUTES: Final = "object_attributes"
"""The key of lists of objects with patch actions, from a newer page of Insider's documentation.

They are passed on as they are, wherever they stand.
"""
TOO_OLD: Final = "too_old"

_BLOCKED: Final = frozenset({"", "undefined", "anonymous", "0", "1", "null"})
"""Identifiers that many people share: sending them would merge these people's profiles."""

_EVENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_EVENT_KEYS: Final = frozenset({"event_name", "timestamp", "event_params"})
_MINUTE_US: Final = 60_000_000
_OLDEST_EVENT: Final = timedelta(days=90)
"""The greatest age of a custom event: Insider does not write older ones (about three months)."""
_OLDEST: Final = {"purchase": timedelta(days=730)}
"""The greatest age of those of Insider's own events that may be older than custom events."""


def unshared(value: Any) -> str | None:
    """Return an identifier as text, unless it is one that many people share."""
    written = text(value)
    return None if written is None or written.lower() in _BLOCKED else written


_IDENTIFIERS: Final[dict[str, Callable[[Any], Any]]] = {
    "email": email,
    "uuid": unshared,
}


def identifiers(value: Any, region: str, dropped: list[str]) -> dict[str, Any]:
    """Return the identifiers that can identify one person."""
    return _made_right(value, "identifiers", _IDENTIFIERS, region, dropped)


def attributes(value: Any, region: str, dropped: list[str]) -> dict[str, Any]:
    """Return the attributes that Insider can take."""
    return _made_right(value, "attributes", DEFAULT_ATTRIBUTES, region, dropped)


def _made_right(
    value: Any,
    part: str,
    table: Mapping[str, Callable[[Any], Any]],
    region: str,
    dropped: list[str],
) -> dict[str, Any]:
    """Return the fields of a part of a user that Insider takes, made right."""
    if type(value) is not dict:
        _drop(part, value, dropped)
        return {}
    right: dict[str, Any] = {}
    for name, given in value.items():
        if given is None or given == "":
            continue
        make = table.get(name)
        if make is not None:
            found = make(given)
        elif name == PHONE:
            found = phone(given, region)
        elif name == "custom" and type(given) is dict:
            found = pruned(given) if table is DEFAULT_ATTRIBUTES else _unshared(given, dropped)
            if not found:
                continue
        else:
            is_list = name == OBJECT_ATTRIBUTES and table is DEFAULT_ATTRIBUTES
            found = given if is_list and not is_empty(given) else None
        if found is not None:
            right[name] = found
        else:
            _drop(f"{part}.{name}", given, dropped)
    return right


def _unshared(given: Mapping[str, Any], dropped: list[str]) -> dict[str, str]:
    right = {name: found for name, value in given.items() if (found := unshared(value)) is not None}
    for name, value in given.items():
        if name not in right:
            _drop(f"identifiers.custom.{name}", value, dropped)
    return right


def events(value: Any, *, time_us: int, now_us: int, dropped: list[str]) -> list[dict[str, Any]]:
    """Return the events that Insider would write; older ones are counted as `too_old`.

    Args:
        value: The list of events, as the template yielded it.
        time_us: The time of the delivery's event, for events that have no time of their own.
        now_us: The time by Redis' clock.
        dropped: The list to which the names of what is left out are added.
    """
    if type(value) is not list:
        _drop("events", value, dropped)
        return []
    right = []
    for given in value:
        if type(given) is not dict:
            _drop("events", given, dropped)
        elif (found := _event(given, time_us, now_us, dropped)) is not None:
            right.append(found)
    return right


def _event(
    given: dict[str, Any], time_us: int, now_us: int, dropped: list[str]
) -> dict[str, Any] | None:
    written = text(given.get("event_name"))
    name = written and _event_name(written)
    if not name:
        dropped.append("events.event_name")
        return None
    moment = _moment(given.get("timestamp"), time_us)
    if moment is None:
        dropped.append("events.timestamp")
        return None
    if moment < _oldest(now_us // _MINUTE_US, name):
        dropped.append(TOO_OLD)
        return None
    if not given.keys() <= _EVENT_KEYS:
        for key in sorted(given.keys() - _EVENT_KEYS):
            _drop(f"events.{key}", given[key], dropped)
    right: dict[str, Any] = {"event_name": name, "timestamp": timestamp(moment)}
    parameters = pruned(given.get("event_params"))
    if type(parameters) is dict:
        _drop_wrong_custom(parameters, dropped)
        if parameters:
            right["event_params"] = parameters
    elif parameters is not None:
        dropped.append("events.event_params")
    return right


@lru_cache(maxsize=1_024)
def _event_name(written: str) -> str | None:
    name = written.lower()
    return name if _EVENT_NAME.fullmatch(name) else None


def _drop_wrong_custom(parameters: dict[str, Any], dropped: list[str]) -> None:
    if type(parameters.get("custom", {})) is not dict:
        del parameters["custom"]
        dropped.append("events.event_params.custom")


def _moment(written: Any, time_us: int) -> datetime | None:
    """Return when a custom event happened: as the template says, else as the delivery's."""
    if is_empty(written):
        return _instant_of(time_us)
    return instant(written)


def _instant_of(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


@lru_cache(maxsize=64)
def _oldest(minute: int, event_name: str) -> datetime:
    return _instant_of(minute * _MINUTE_US) - _OLDEST.get(event_name, _OLDEST_EVENT)


def _drop(name: str, value: Any, dropped: list[str]) -> None:
    if not is_empty(value):
        dropped.append(name)
