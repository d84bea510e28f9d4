"""Values as Insider's documentation wants them."""

from __future__ import annotations

from typing import Any

import pytest

from segrelay.worker.destinations import normalise


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (None, None),
        ("", None),
        ([], None),
        ({}, None),
        ([""], None),
        ({"a": {"b": [None, ""]}}, None),
        (0, 0),
        (False, False),
        (0.0, 0.0),
        ([0, "", "x"], [0, "x"]),
        ({"a": "", "b": False, "c": ["", 1]}, {"b": False, "c": [1]}),
    ],
)
def test_what_is_empty_is_left_out_and_zero_and_false_are_values(value: Any, left: Any) -> None:
    assert normalise.pruned(value) == left
    assert type(normalise.pruned(value)) is type(left)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (" Ann@Example.COM ", "ann@example.com"),
        ("ann", None),
        ("ann@example", None),
        ("@example.com", None),
        (7, None),
    ],
)
def test_an_email_is_trimmed_and_in_lower_case(value: Any, written: str | None) -> None:
    assert normalise.email(value) == written


@pytest.mark.parametrize(
    ("value", "region", "written"),
    [
        ("+14155552671", "US", "+14155552671"),
        (" +14155552671 ", "DE", "+14155552671"),
        ("(415) 555-2671", "US", "+14155552671"),
        (14155552671, "US", "+14155552671"),
        ("0151 23456789", "DE", "+4915123456789"),
        ("0049 151 23456789", "US", "+4915123456789"),
        ("+44 20 7946 0018", "US", "+442079460018"),
        ("+1 415 555 2671", "US", "+14155552671"),
        ("+4401234567890", "US", "+441234567890"),
        ("+390612345678", "US", "+390612345678"),
        ("DE:0171 2345678", "US", "+491712345678"),
        ("DE:+14155552671", "US", "+14155552671"),
        ("XX:4155552671", "US", "+14155552671"),
        ("555", "US", None),
        ("undefined", "US", None),
        (True, "US", None),
        (["+14155552671"], "US", None),
    ],
)
def test_a_phone_number_becomes_e164(value: Any, region: str, written: str | None) -> None:
    assert normalise.phone(value, region) == written


@pytest.mark.parametrize("value", ["9999999999", "+19999999999", "0000000000", "1234567890"])
def test_a_number_that_no_country_gives_out_is_nobodys(value: str) -> None:
    assert normalise.phone(value, "US") is None


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        ([1, "2", 3.0], [1, 2, 3]),
        (["", 7], [7]),
        ("7", [7]),
        (["seven", 7], None),
        ([1.5], None),
        (True, None),
        ([], None),
    ],
)
def test_contact_lists_are_numbers(value: Any, numbers: list[int] | None) -> None:
    assert normalise.contact_lists(value) == numbers


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("en_US", "en_US"),
        ("en-us", "en_US"),
        ("EN", "en_US"),
        ("English", "en_US"),
        ("de-AT", "de_AT"),
        ("ger", "de_DE"),
        ("zh-Hant", "zh_TW"),
        ("zh_Hans_CN", "zh_CN"),
        ("iw", "he_IL"),
        ("es-419", "es_MX"),
        ("en-001", "en_US"),
        ("pt_419", "pt_BR"),
        ("fil", "tl_PH"),
        ("fil-PH", "tl_PH"),
        ("yue", None),
        ("Klingonish", None),
        ("en_ZZ", None),
        (7, None),
    ],
)
def test_a_language_becomes_a_locale(value: Any, written: str | None) -> None:
    assert normalise.language(value) == written


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("US", "US"),
        ("us", "US"),
        ("USA", "US"),
        ("United States", "US"),
        ("united kingdom", "GB"),
        ("UK", "GB"),
        ("Turkey", "TR"),
        ("Russia", "RU"),
        ("South Korea", "KR"),
        ("Atlantis", None),
        ("", None),
        (1, None),
    ],
)
def test_a_country_becomes_its_two_letters(value: Any, code: str | None) -> None:
    assert normalise.country(value) == code


@pytest.mark.parametrize(
    ("value", "stated"),
    [
        (True, True),
        ("t", True),
        ("True", True),
        ("1", True),
        (1, True),
        (" YES ", True),
        (False, False),
        ("f", False),
        (0, False),
        ("no", False),
        ("unknown", None),
        ("2", None),
        (1.0, None),
        ([True], None),
        (None, None),
    ],
)
def test_only_what_is_clearly_stated_is_a_boolean(value: Any, stated: bool | None) -> None:
    assert normalise.boolean(value) is stated


@pytest.mark.parametrize(
    ("value", "years"),
    [
        ("34", 34),
        (34.0, 34),
        ("34.5", 34.5),
        (0, 0),
        (-1, None),
        (151, None),
        ("nan", None),
        ("old", None),
        (True, None),
        ([34], None),
    ],
)
def test_an_age_is_a_possible_number(value: Any, years: float | None) -> None:
    assert normalise.age(value) == years


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("1990-05-17", "1990-05-17T00:00:00Z"),
        ("19900517", "1990-05-17T00:00:00Z"),
        ("1990-05-17T00:00:00Z", "1990-05-17T00:00:00Z"),
        ("1990-05-17T00:00:00.123+03:00", "1990-05-17T00:00:00Z"),
        ("05/17/1990", None),
        ("1990-02-30", None),
        (642902400, None),
    ],
)
def test_a_birthday_keeps_its_day(value: Any, written: str | None) -> None:
    assert normalise.birthday(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("2026-11-01T10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01T12:00:00+02:00", "2026-11-01T10:00:00Z"),
        ("2026-11-01t10:00:00z", "2026-11-01T10:00:00Z"),
        ("2026-11-01T10:00:00.000000900Z", "2026-11-01T10:00:00Z"),
        ("2026-11-01T10:00:00.5Z", "2026-11-01T10:00:00.500000Z"),
        ("2026-11-01T10:00:00.872199Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01 10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01T10:00:00,872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-W44-7T10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("20261101T100000.8721996150000Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01T12:00:00.872199615+02:00", "2026-11-01T10:00:00.872199Z"),
        (" 2026-11-01T10:00:00.872199615Z ", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01T10:00:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("soon", None),
        (1793527200, None),
    ],
)
def test_a_time_has_at_most_six_digits_and_ends_in_z(value: Any, written: str | None) -> None:
    moment = normalise.instant(value)

    assert (moment and normalise.timestamp(moment)) == written
    assert (moment and normalise.timestamp(moment, value)) == written
