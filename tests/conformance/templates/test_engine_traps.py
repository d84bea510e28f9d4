"""What the engine does that a worker must survive: each trap, and its outcome."""

import pytest

from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.isolated import render_isolated
from segrelay.jsonnet.rendered import Rendered, Row, TemplateBroken, TemplateFailed
from segrelay.ops.templates.check import check_template
from segrelay.ops.templates.workspace import Case
from segrelay.templates import LYTEMPLATES

LIBRARY = "local event = import 'lytemplates.libsonnet';\nlocal n = event.get('n');\n"
NOT_COMPILED = "if (function(s) false)(std) then 0 else "
ROWS = [Row(b'{"n": 1}'), Row(b'{"n": 1000000000000}'), Row(b'{"n": 2}')]


@pytest.fixture
def isolated(tmp_path):
    def render(source):
        (tmp_path / "t.jsonnet").write_text(source)
        bundle = TemplateFolder(tmp_path, LYTEMPLATES).bundle("t.jsonnet")
        return render_isolated(bundle, ROWS, seconds=30.0, memory_bytes=1 << 29)

    return render


@pytest.fixture
def checked(tmp_path):
    def check(source):
        (tmp_path / "t.jsonnet").write_text(source)
        return check_template(tmp_path, "t.jsonnet", [Case("enter", {"n": 3}, {})])

    return check


def test_isolated_results_are_those_of_the_renderer(isolated, rendered):
    source = LIBRARY + "assert n != 2 : 'two';\n{ n: if n > 9 then error 'big' else n }"

    assert isolated(source) == rendered(source, ROWS)


def test_a_broken_template_is_broken_there_too(isolated):
    with pytest.raises(TemplateBroken, match=r"t\.jsonnet:1:4"):
        isolated("{ a")


@pytest.mark.parametrize("source", ["local a = [a]; a", "std.repeat('a', 1e12)"])
def test_the_check_survives_a_template_that_kills(checked, source):
    report = checked(NOT_COMPILED + source)

    assert not report.is_fit
    assert "ends or hangs the process" in report.findings[0].message


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("call", ["f(x + 1)", "f(x + 1) + 1"])
def test_endless_recursion_is_an_error_of_the_event(rendered, call, compiles):
    results = rendered(f"local f(x) = {call};\n{{ a: f(1) }}", ROWS, compiles=compiles)

    assert [type(result) for result in results] == [TemplateFailed] * 3
    assert "stack" in results[0].message


def test_a_panic_is_an_error_of_the_event(rendered):
    results = rendered(LIBRARY + "if n == 1 then std.sort([{}, 1]) else n", ROWS)

    assert isinstance(results[0], TemplateFailed)
    assert (results[0].file, results[0].line) == ("t.jsonnet", 3)
    assert [type(result) for result in results[1:]] == [Rendered] * 2


@pytest.mark.parametrize("number", ["std.pow(10, 400)", "-std.pow(10, 400)"])
def test_a_number_that_json_lacks_is_refused(rendered, number):
    source = LIBRARY + f"{{ info: 'inf nan', a: if n == 1 then {number} else n }}"

    results = rendered(source, ROWS)

    assert isinstance(results[0], TemplateFailed)
    assert "inf" in results[0].message
    assert isinstance(results[1], Rendered)


def test_a_value_on_which_the_engines_differ_is_named_by_the_check(checked):
    report = checked("{ a: std.member('abc', '') }")

    assert not report.is_fit
    assert all("the engine" in finding.message for finding in report.findings)


def test_the_check_is_silent_where_all_agree(checked):
    digests = "[std.sha1('x'), std.sha256('x'), std.sha3('x'), std.sha512('x')]"
    report = checked(LIBRARY + f"{{ n: std.trim(' x ') + n, s: event.sha1('x'), d: {digests} }}")

    assert (report.is_fit, list(report.findings)) == (True, [])


@pytest.mark.parametrize(
    "source",
    [
        "{ a: std.pow(10, 400) }",
        LIBRARY + "{ a: n / 7, b: [n, 2][n / 3 - 1] }",
        LIBRARY + "{ a: std.repeat('a', n / 2) }",
    ],
)
def test_the_check_survives_a_number_of_another_kind(checked, source):
    report = checked(source)

    assert report.renders
    assert all("disagree" in f.message or "fails for" in f.message for f in report.findings)
