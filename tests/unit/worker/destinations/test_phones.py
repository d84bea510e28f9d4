"""Phone numbers in E.164 form are judged quickly, and as the library judges them."""

import random

import phonenumbers
import pytest

from segrelay.worker.destinations.normalise import by_library, valid_e164
from tests.nightly import amount

NUMBERS = amount(200, nightly=40_000)
FORM = phonenumbers.PhoneNumberFormat.E164


def examples() -> list[str]:
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
    return [phonenumbers.format_number(number, FORM) for number in found if number is not None]


def with_wrong_digits(rng: random.Random, written: str) -> str:
    signs = list(written)
    for at in rng.sample(range(1, len(signs)), min(len(signs) - 1, rng.randint(1, 4))):
        signs[at] = rng.choice(["", *"0123456789", str(rng.randrange(100))])
    return "".join(signs)


@pytest.mark.parametrize("seed", range(amount(1, nightly=3)))
def test_a_number_is_judged_as_the_library_judges_it(seed: int) -> None:
    rng = random.Random(seed)
    known = examples()

    for number in [*known, *(with_wrong_digits(rng, rng.choice(known)) for _ in range(NUMBERS))]:
        for written in (number, f"00{number[1:]}", f"+{rng.randrange(10 ** rng.randint(2, 15))}"):
            international = "+" + written[2:] if written.startswith("00") else written

            assert valid_e164(written, "US") == by_library(international, "US"), written
