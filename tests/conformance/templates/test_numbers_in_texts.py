"""Numbers in texts: compiled templates write them digit for digit as go-jsonnet does."""

import json
import math
from random import Random

import orjson
import pytest

from segrelay.jsonnet.compiled import Compiled, Doubtful, compile_template
from segrelay.jsonnet.engines.judge import judge
from segrelay.jsonnet.files import TemplateFolder
from segrelay.templates import LYTEMPLATES
from tests.nightly import amount

NUMBERS = amount(20, nightly=5_000)
EXPRESSIONS = (
    *(
        f"'{code}' % n"
        for code in (
            *("%.0f", "%.1f", "%.2f", "%f", "%.7f", "%7.1f", "%07.1f", "%-7.1f|", "%+.1f", "% .1f"),
            *("%F", "%.3f", "%#.2f", "%#.0f"),
            *("%d", "%05d", "%.3d", "%+d", "%i", "%u"),
            *("%s", "%12s", "%-25s|", "%ld"),
        )
    ),
    *("'' + n", "n + '|'", "std.toString([n])", "std.manifestJsonMinified({ n: n })"),
    *("std.round(n)", "n < 1"),
    *("std.floor(n)", "std.ceil(n)"),
)
HARD = (
    *(0, -0.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.5, 0.95, 0.99, 0.995, 1.005, 2.5, 9.95, 99.5),
    999.95,
    *(0.1, 0.2, 0.3, 1 / 3, 1e-4, 1e-5, 1e-7, 1e15, 1e16, 1e17, 1e21, 2**53, 2**53 + 2, 1e-300),
    *(10.0**power for power in range(-8, 20)),
)


def _numbers():
    random = Random(11)
    yield from HARD
    yield from (-number for number in HARD[:: amount(3, nightly=1)])
    for _ in range(NUMBERS):
        digits, locations = random.randint(0, 6), random.randint(0, 7)
        yield round(random.uniform(-(10**digits), 10**digits), locations)
        yield random.uniform(-1, 1) * 10.0 ** random.randint(-12, 18)


NUMBERS_OF_ALL = tuple(_numbers())


def _bundle(folder, expression):
    library = "local event = import 'lytemplates.libsonnet';\nlocal n = event.get('n');\n"
    (folder / "t.jsonnet").write_text(library + expression)
    return TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")


def _judged(bundle, numbers):
    profiles = [orjson.dumps({"n": number}) for number in numbers]
    return judge("gojsonnet", bundle, profiles, b"{}", seconds=120)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return for each number what go-jsonnet makes of it, by expression: one process for all."""
    folder = tmp_path_factory.mktemp("numbers")
    together = _judged(_bundle(folder, "[" + ", ".join(EXPRESSIONS) + "]"), NUMBERS_OF_ALL)
    return [json.loads(each) if isinstance(each, str) else None for each in together]


@pytest.mark.parametrize("at", range(len(EXPRESSIONS)), ids=EXPRESSIONS)
def test_a_number_has_the_digits_that_go_jsonnet_gives_it(tmp_path, told, at):
    made = compile_template(_bundle(tmp_path, EXPRESSIONS[at]))
    assert isinstance(made, Compiled)
    answered = 0

    for number, theirs in zip(NUMBERS_OF_ALL, told, strict=True):
        try:
            ours = made.render({"n": number}, {})
        except Doubtful:
            continue
        assert theirs is not None, number
        assert _is_same(ours, theirs[at]), (number, ours, theirs[at])
        answered += 1
    assert answered > len(NUMBERS_OF_ALL) * 0.6


def _is_same(ours, theirs):
    if isinstance(ours, int | float) and not isinstance(ours, bool):
        return float(ours) == float(theirs) and math.copysign(1, ours) == math.copysign(1, theirs)
    return ours == theirs
