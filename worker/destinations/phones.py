"""Reads phone numbers as the `phonenumbers` library does, most of them much faster.

Its rules for a country are taken from its own metadata and compiled once. What is written in an
unusual way (letters, extensions, a prefix for calls abroad) is handed on to the library, and so is
what the rules would have to rewrite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import phonenumbers
from phonenumbers import PhoneMetadata

_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_E164_LENGTHS: Final = range(8, 17)
_PLAIN: Final = re.compile(r"[+(]?[0-9 ()./-]{1,40}", re.ASCII)
_PUNCTUATION: Final = str.maketrans("", "", "+ ()./-")
_DIGIT: Final = re.compile(r"\d")
_CALLING_CODES: Final = {str(code): code for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE}
_CALLING_CODE_LENGTHS: Final = (1, 2, 3)
"""The lengths of calling codes, in digits; no calling code begins with another one."""
_TYPES: Final = (
    "mobile", "fixed_line", "toll_free", "premium_rate", "shared_cost", "voip",
    "personal_number", "pager", "uan", "voicemail",
)  # fmt: skip
_REMEMBERED: Final = 8_192
_NEVER: Final = r"(?!)"


@lru_cache(_REMEMBERED)
def valid_e164(number: str, region: str) -> str | None:
    """Return a number in E.164 form, or None if it is not valid in any country.

    Args:
        number: With a country code (`+` or `00`), or as it is dialled within the region.
        region: ISO 3166-1 alpha-2.
    """
    international = "+" + number[2:] if number.startswith("00") else number
    try:
        code, national = _parsed(international, region)
    except _InDoubt:
        return by_library(international, region) if _DIGIT.search(international) else None
    if not _validity(code).fullmatch(national):
        return None
    written = f"+{code}{national}"
    return written if len(written) in _E164_LENGTHS else None


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


class _InDoubt(Exception):  # noqa: N818 - it is no error
    """A number that the rules here do not decide: `phonenumbers` is asked."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """The number patterns of a region.

    Args:
        code: Its calling code.
        general: The pattern of all of its national numbers.
        prefix: The digits dialled before them within the region; None = none.
        is_rewritten: A number with the prefix may have to be written anew.
        abroad: The digits dialled there before a calling code.
        lengths: Of its national numbers.
        local_lengths: Of those that are dialled within a part of the region only.
    """

    code: int
    general: re.Pattern[str]
    prefix: re.Pattern[str] | None
    is_rewritten: bool
    abroad: re.Pattern[str] | None
    lengths: frozenset[int]
    local_lengths: frozenset[int]

    def without_prefix(self, digits: str) -> str:
        """Return a number without its national prefix, unless only the whole number looks right."""
        begin = self.prefix and self.prefix.match(digits)
        if not begin:
            return digits
        if self.is_rewritten and (not begin.re.groups or begin[begin.re.groups] is not None):
            raise _InDoubt
        rest = digits[begin.end() :]
        if self.general.fullmatch(digits) and not self.general.fullmatch(rest):
            return digits
        return rest

    def significant(self, digits: str) -> str:
        """Return a national number without its national prefix, if its length is possible then."""
        rest = self.without_prefix(digits)
        if rest is digits:
            return digits
        length = len(rest)
        fits = length in self.lengths or length > max(self.lengths)
        return rest if fits and length not in self.local_lengths else digits


def _parsed(number: str, region: str) -> tuple[int, str]:
    """Return calling code and significant number, as the library's `parse` does."""
    if _E164.fullmatch(number):
        return _of_code(number[1:])
    if not _PLAIN.fullmatch(number):
        raise _InDoubt
    digits = number.translate(_PUNCTUATION)
    return _of_code(digits) if "+" in number else _of_region(digits, region)


def _of_code(digits: str) -> tuple[int, str]:
    for length in _CALLING_CODE_LENGTHS:
        code = _CALLING_CODES.get(digits[:length])
        if code is not None:
            return code, _main_rules(code).significant(digits[length:])
    # The library tries it again without the plus.
    raise _InDoubt


def _of_region(digits: str, region: str) -> tuple[int, str]:
    """Read a number as it is dialled within a region; the calling code may stand in front of it."""
    rules = _rules(region)
    if rules.abroad and rules.abroad.match(digits):
        raise _InDoubt
    code_text = str(rules.code)
    if digits.startswith(code_text):
        rest = rules.without_prefix(digits[len(code_text) :])
        general = rules.general
        is_too_long = len(digits) > max(rules.lengths) and len(digits) not in rules.local_lengths
        if is_too_long or (not general.fullmatch(digits) and general.fullmatch(rest)):
            return rules.code, _main_rules(rules.code).significant(rest)
    return rules.code, rules.significant(digits)


@cache
def _main_rules(code: int) -> _Rules:
    return _rules_of(_metadata(code, phonenumbers.region_code_for_country_code(code)))


@cache
def _rules(region: str) -> _Rules:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise _InDoubt
    return _rules_of(PhoneMetadata.metadata_for_region(region))


def _metadata(code: int, region: str) -> Any:
    return PhoneMetadata.metadata_for_region_or_calling_code(code, region)


def _rules_of(metadata: Any) -> _Rules:
    general = metadata.general_desc
    prefix, abroad = metadata.national_prefix_for_parsing, metadata.international_prefix
    return _Rules(
        code=metadata.country_code,
        general=re.compile(general.national_number_pattern or _NEVER),
        prefix=re.compile(prefix) if prefix else None,
        is_rewritten=bool(metadata.national_prefix_transform_rule),
        abroad=re.compile(abroad) if abroad else None,
        lengths=frozenset(general.possible_length),
        local_lengths=frozenset(general.possible_length_local_only),
    )


@cache
def _validity(code: int) -> re.Pattern[str]:
    """Return the pattern that matches exactly the valid significant numbers of a calling code.

    The first region that claims a number by its first digits decides about it; one that claims
    none takes whatever is valid there.
    """
    written = _NEVER
    for region in reversed(phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]):
        metadata = _metadata(code, region)
        if metadata is None:
            continue
        valid = _valid_in(metadata)
        lead = metadata.leading_digits
        if lead is not None and len(phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]) > 1:
            written = f"(?={lead})(?:{valid})|(?!{lead})(?:{written})"
        else:
            written = f"{valid}|{written}"
    return re.compile(written)


def _valid_in(metadata: Any) -> str:
    kinds = dict.fromkeys(_kinds_of(metadata))
    return f"(?={_matching(metadata.general_desc)})(?:{'|'.join(kinds) or _NEVER})"


def _kinds_of(metadata: Any) -> Iterator[str]:
    for name in _TYPES:
        desc = getattr(metadata, name)
        if desc is not None and desc.national_number_pattern:
            yield _matching(desc)


def _matching(desc: Any) -> str:
    """Return the pattern of the numbers that a description allows, with their possible lengths."""
    pattern = desc.national_number_pattern or _NEVER
    return f"{_of_lengths(desc.possible_length)}(?:{pattern})\\Z"


def _of_lengths(lengths: Sequence[int]) -> str:
    if not lengths:
        return ""
    ways = "|".join(f"\\d{{{length}}}" for length in lengths if length > 0) or _NEVER
    return f"(?=(?:{ways})\\Z)"
