"""Phone numbers: read quickly, and as the library reads them."""

import random
from collections.abc import Iterator

import phonenumbers
import pytest

from segrelay.worker.destinations.normalise import by_library, valid_e164
from tests.nightly import amount

REGIONS = ("US", "CA", "GB", "DE", "FR", "IT", "BR", "AR", "MX", "IN", "AU", "RU", "JP", "SM")
CODES = {region: phonenumbers.country_code_for_region(region) for region in REGIONS}
NUMBERS = amount(1_000, nightly=40_000)
"""Of each way in which numbers are invented."""


def examples() -> list[phonenumbers.PhoneNumber]:
    """Return a number of each type of each region, and of each calling code without a region."""
    found = [
        phonenumbers.example_number_for_type(region, kind)
        for region in sorted(phonenumbers.SUPPORTED_REGIONS)
        for kind in phonenumbers.PhoneNumberType.values()
    ]
    found += map(
        phonenumbers.example_number_for_non_geo_entity,
        phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS,
    )
    return [number for number in found if number is not None]


def as_written(rng: random.Random, number: phonenumbers.PhoneNumber) -> str:
    """Write a number in one of the ways in which people do."""
    ways = phonenumbers.PhoneNumberFormat
    written = phonenumbers.format_number(
        number, rng.choice([ways.E164, ways.INTERNATIONAL, ways.NATIONAL, ways.RFC3966])
    )
    match rng.randrange(12):
        case 0:
            return written.replace("+", "00")
        case 1:
            return written.replace("+", "")
        case 2:
            return written.replace(" ", rng.choice([".", "/", "-", "  ", ""]))
        case 3:
            return f"{written} ext. {rng.randrange(999)}"
        case 4:
            return f"({written})"
        case 5:
            return written.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    return written


def with_wrong_digits(rng: random.Random, written: str) -> str:
    digits = [at for at, sign in enumerate(written) if sign.isdigit()]
    signs = list(written)
    for at in rng.sample(digits, min(len(digits), rng.randint(1, 4))):
        signs[at] = rng.choice(["", *"0123456789", str(rng.randrange(100))])
    return "".join(signs)


def invented(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield numbers and the regions in which they are dialled, every other one in its own."""
    known = examples()
    by_code = {code: [one for one in known if one.country_code == code] for code in CODES.values()}
    for at in range(NUMBERS):
        region = rng.choice(REGIONS)
        written = as_written(rng, rng.choice(by_code[CODES[region]] if at % 2 else known))
        yield written, region
        yield with_wrong_digits(rng, written), region
        yield with_wrong_digits(rng, with_wrong_digits(rng, written)), region
        yield "+" + str(rng.randrange(10 ** rng.randint(2, 15))), region
        yield str(rng.randrange(10 ** rng.randint(2, 13))).zfill(rng.randint(0, 11)), region
        signs = (rng.choice("0123456789+ ()-./x#;a") for _ in range(rng.randint(0, 16)))
        yield "".join(signs), region


@pytest.mark.parametrize("seed", range(3))
def test_a_number_is_read_as_the_library_reads_it(seed: int) -> None:
    for number, region in invented(random.Random(seed)):
        international = "+" + number[2:] if number.startswith("00") else number

        assert valid_e164(number, region) == by_library(international, region), (number, region)


def test_each_number_of_each_country_is_valid_as_it_is_dialled_there_and_abroad() -> None:
    for number in examples():
        written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

        assert valid_e164(written, "US") == by_library(written, "US")


def test_an_unknown_region_reads_only_numbers_with_a_country_code() -> None:
    assert valid_e164("+14155552671", "XX") == "+14155552671"
    assert valid_e164("4155552671", "XX") is None
