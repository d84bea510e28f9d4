import pytest

from segrelay.jsonnet.engines.failures import Failure, read

ASSERT = """assert failed: no email
 and no phone
    templates:/insider/t.jsonnet:4:8-14: assertion failure
    main:1:1-23: function <f> call"""
IN_THE_LIBRARY = """no such field: x
    lib:/library.libsonnet:30:5-9: field <x> access
    templates:/t.jsonnet:7:5-20:    function <get> call
    field <a> manifestification"""
REFERENCE = """RUNTIME ERROR: field does not exist: enter
\ttemplates:/t.jsonnet:(3:5)-(4:3)\tobject <anonymous>
\tDuring manifestation\t
"""


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (ASSERT, Failure("no email\n and no phone", True, "insider/t.jsonnet", 4, 8)),
        ("assert failed: null", Failure("null", asserted=True)),
        (IN_THE_LIBRARY, Failure("no such field: x", False, "t.jsonnet", 7, 5)),
        (REFERENCE, Failure("field does not exist: enter", False, "t.jsonnet", 3, 5)),
        (
            "STATIC ERROR: templates:/t.jsonnet:2:9-12: Unknown variable: y",
            Failure("Unknown variable: y", False, "t.jsonnet", 2, 9),
        ),
        (
            "runtime error: assert failed: no\n    templates:/t.jsonnet:1:2-3: error statement",
            Failure("assert failed: no", False, "t.jsonnet", 1, 2),
        ),
        ("cant index into null\n    field <a> manifestification", Failure("cant index into null")),
        (
            "syntax error: expected one of x\n    templates:/t.jsonnet:3:1",
            Failure("syntax error: expected one of x", False, "t.jsonnet", 3, 1),
        ),
        (
            "import_callback error\n    lib:/lytemplates.libsonnet:4:2-9: variable <p> access",
            Failure("import_callback error", False, "lib/lytemplates.libsonnet", 4, 2),
        ),
        ("runtime error: " + "x" * 1_000, Failure("x" * 300)),
        ("", Failure("")),
    ],
)
def test_an_engines_text_becomes_message_and_place(text, failure):
    assert read(text) == failure


def test_a_line_of_ours_is_not_counted():
    assert read(IN_THE_LIBRARY, frozenset({"templates:/t.jsonnet"})).line == 6
