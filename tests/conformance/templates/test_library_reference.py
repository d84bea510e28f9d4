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


def test_a_time_is_the_one_that_shaping_would_make(agreed_source):
    values = agreed_source(
        'local v = import "values.libsonnet"; local e = import "lytemplates.libsonnet";\n'
        'v.time(e.get("t"))',
        [{"t": time} for time in TIMES],
    )

    for time, value in zip(TIMES, values, strict=True):
        moment = instant(time)
        assert value == (moment and timestamp(moment)), time


STATED = [
    "t", "F", " yes ", "No", "on", "off", "1", "0", 1, 0, True, False, "", "2", 2, None, "maybe",
]  # fmt: skip


def test_a_boolean_is_the_one_that_shaping_would_make(agreed_source):
    values = agreed_source(
        'local v = import "values.libsonnet"; local e = import "lytemplates.libsonnet";\n'
        'v.boolean(e.get("t"))',
        [{"t": value} for value in STATED],
    )

    assert values == [boolean(value) for value in STATED]


EMPTY = {"a": "", "b": [], "c": {"d": {}, "e": [None, ""]}, "f": [0, False, "x", [""]], "g": " "}


def test_omitting_is_what_shaping_does(agreed_source):
    values = agreed_source(
        'local v = import "values.libsonnet"; local e = import "lytemplates.libsonnet";\n'
        'v.omitEmpty(e.get("t"))',
        [{"t": EMPTY}, {"t": {}}],
    )

    assert values == [pruned(EMPTY), {}]
    assert is_empty(values[1])
