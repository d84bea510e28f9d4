"""The reference of the library says what the library does: every example, on every engine."""

import json
import re

import pytest

from segrelay.templates import LIBRARY_FOLDER
from segrelay.templates.reference import EVENT, LIBRARIES, members
from segrelay.worker.destinations.normalise import boolean, instant, is_empty, pruned, timestamp

IMPORTS = "".join(f'local {one.variable} = import "{one.imports}";\n' for one in LIBRARIES)
EXAMPLES = {
    f"{library.variable}.{member.name}-{number}": example
    for library in LIBRARIES
    for member in members(library)
    for number, example in enumerate(member.examples)
}
SETTINGS = [
    json.loads(text)
    for text in sorted({json.dumps(one.settings or {}) for one in EXAMPLES.values()})
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_each_example_yields_what_it_says(agreed_source, settings):
    examples = {name: e for name, e in EXAMPLES.items() if (e.settings or {}) == settings}
    cases = ",\n".join(f"'{name}': [{e.expression}]" for name, e in examples.items())
    profiles = [
        {**example.profile, "example": name, "segment_events": [EVENT]}
        for name, example in examples.items()
    ]

    values = agreed_source(f"{IMPORTS}{{{cases}}}[event.get('example')]", profiles, settings)

    assert {
        name: (value, type(value[0])) for name, value in zip(examples, values, strict=True)
    } == {
        name: ([json.loads(e.result)], type(json.loads(e.result))) for name, e in examples.items()
    }


def undocumented(library):
    """Return the hidden members of a library, which are its functions, that no comment is about."""
    source = (LIBRARY_FOLDER / library.source).read_text("utf-8")
    names = re.findall(r"^ +([A-Za-z][A-Za-z0-9]*)(?:\(.*\))?::(?: |$)", source, re.MULTILINE)
    documented = {member.name for member in members(library)}
    return [name for name in names if name not in documented]


@pytest.mark.parametrize("library", LIBRARIES)
def test_everything_in_the_library_is_documented_with_an_example(library):
    assert undocumented(library) == []
    assert members(library)
    assert [member.name for member in members(library) if not member.examples] == []
    assert [member.name for member in members(library) if not member.text] == []


TIMES = [
    "2026-11-01T10:00:00.872199615Z",
    "2026-11-01T12:00:00+02:00",
    "2026-11-01t12:00:00.500000-0130",
    "2024-02-29T23:59:59-12:00",
    "2000-02-29T00:00:00Z",
    "1969-12-31T23:59:59.999000Z",
    "0001-01-02T00:00:00+00:00",
    "9999-12-30T00:00:00Z",
    "2026-01-01 00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-11-31T00:00:00Z",
    "2026-11-01T24:00:01Z",
    "2026-11-01T10:60:00Z",
    "2026-11-01T10:00:00+2:00",
    "2026-11-01T10:00:00x",
    "2026/11/01",
    "yesterday",
    "",
    None,
    True,
    [],
]


STATED = [
    "t", "F", " yes ", "No", "on", "off", "1", "0", 1, 0, True, False, "", "2", 2, None, "maybe",
]  # fmt: skip


EMPTY = {"a": "", "b": [], "c": {"d": {}, "e": [None, ""]}, "f": [0, False, "x", [""]], "g": " "}


def time_of(value):
    moment = instant(value)
    return moment and timestamp(moment)


@pytest.mark.parametrize(
    ("function", "shapes", "given"),
    [
        ("time", time_of, TIMES),
        ("boolean", boolean, STATED),
        ("omitEmpty", pruned, [EMPTY]),
        ("omitEmpty", lambda value: value if is_empty(value) else None, [{}]),
    ],
)
def test_a_value_is_the_one_that_shaping_would_make(agreed_source, function, shapes, given):
    values = agreed_source(
        'local v = import "values.libsonnet"; local e = import "lytemplates.libsonnet";\n'
        f'v.{function}(e.get("t"))',
        [{"t": value} for value in given],
    )

    assert values == [shapes(value) for value in given]
