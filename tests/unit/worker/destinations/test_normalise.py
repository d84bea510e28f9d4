"""Values as Insider's documentation wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from segrelay.worker.destinations import normalise


@pytest.mark.parametrize(
    ("read", "value", "written"),
    [
        (normalise.pruned, None, None),
        (normalise.pruned, "", None),
        (normalise.pruned, [], None),
        (normalise.pruned, [""], None),
        (normalise.pruned, {"a": {"b": [None, ""]}}, None),
        (normalise.pruned, 0, 0),
        (normalise.pruned, False, False),
        (normalise.pruned, {"a": "", "b": False, "c": ["", 1]}, {"b": False, "c": [1]}),
        (normalise.email, " Ann@Example.COM ", "ann@example.com"),
        (normalise.email, "ann", None),
        (normalise.email, "ann@example", None),
        (normalise.email, "@example.com", None),
        (normalise.contact_lists, [1, "2", 3.0], [1, 2, 3]),
        (normalise.contact_lists, "7", [7]),
        (normalise.contact_lists, ["seven", 7], None),
        (normalise.contact_lists, [1.5], None),
        (normalise.contact_lists, True, None),
        (normalise.contact_lists, [], None),
        (normalise.language, "en_US", "en_US"),
        (normalise.language, "en-us", "en_US"),
        (normalise.language, "English", "en_US"),
        (normalise.language, "de-AT", "de_AT"),
        (normalise.language, "ger", "de_DE"),
        (normalise.language, "zh-Hant", "zh_TW"),
        (normalise.language, "zh_Hans_CN", "zh_CN"),
        (normalise.language, "iw", "he_IL"),
        (normalise.language, "es-419", "es_MX"),
        (normalise.language, "en-001", "en_US"),
        (normalise.language, "fil", "tl_PH"),
        (normalise.language, "yue", None),
        (normalise.language, "en_ZZ", None),
        (normalise.language, 7, None),
        (normalise.country, "US", "US"),
        (normalise.country, "USA", "US"),
        (normalise.country, "United States", "US"),
        (normalise.country, "UK", "GB"),
        (normalise.country, "Turkey", "TR"),
        (normalise.country, "Russia", "RU"),
        (normalise.country, "Atlantis", None),
        (normalise.country, "", None),
        (normalise.boolean, True, True),
        (normalise.boolean, "t", True),
        (normalise.boolean, "1", True),
        (normalise.boolean, " YES ", True),
        (normalise.boolean, False, False),
        (normalise.boolean, 0, False),
        (normalise.boolean, "unknown", None),
        (normalise.boolean, 1.0, None),
        (normalise.boolean, [True], None),
        (normalise.age, "34", 34),
        (normalise.age, 34.0, 34),
        (normalise.age, "34.5", 34.5),
        (normalise.age, 0, 0),
        (normalise.age, -1, None),
        (normalise.age, 151, None),
        (normalise.age, "nan", None),
        (normalise.age, True, None),
        (normalise.birthday, "1990-05-17", "1990-05-17T00:00:00Z"),
        (normalise.birthday, "19900517", "1990-05-17T00:00:00Z"),
        (normalise.birthday, "1990-05-17T00:00:00Z", "1990-05-17T00:00:00Z"),
        (normalise.birthday, "1990-05-17T00:00:00.123+03:00", "1990-05-17T00:00:00Z"),
        (normalise.birthday, "05/17/1990", None),
        (normalise.birthday, "1990-02-30", None),
        (normalise.birthday, 642902400, None),
    ],
)
def test_a_value_is_written_as_insider_wants_it_or_left_out(
    read: Callable[[Any], Any], value: Any, written: Any
) -> None:
    assert read(value) == written
    assert type(read(value)) is type(written)


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
        ("+4401234567890", "US", "+441234567890"),
        ("+390612345678", "US", "+390612345678"),
        ("DE:0171 2345678", "US", "+491712345678"),
        ("XX:4155552671", "US", "+14155552671"),
        ("555", "US", None),
        (True, "US", None),
        (["+14155552671"], "US", None),
        # No country gives these out.
        ("9999999999", "US", None),
        ("+19999999999", "US", None),
        ("1234567890", "US", None),
    ],
)
def test_a_phone_number_becomes_e164(value: Any, region: str, written: str | None) -> None:
    assert normalise.phone(value, region) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("2026-11-01T10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01t10:00:00z", "2026-11-01T10:00:00Z"),
        ("2026-11-01T10:00:00.000000900Z", "2026-11-01T10:00:00Z"),
        ("2026-11-01 10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01T10:00:00,872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-W44-7T10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
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
