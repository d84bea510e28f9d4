"""Nothing of ours is reachable from a template, and `std.trace` discloses nothing."""

import orjson
import pytest

from segrelay.jsonnet.engines.judge import judge, judges
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.isolated import render_isolated
from segrelay.jsonnet.rendered import Rendered, Row, TemplateBroken, TemplateFailed
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from tests.nightly import amount

HEAD = "local event = import 'lytemplates.libsonnet';\n"
REFERENCE = " + (if std.slice([1, 2], -1, null, 1) == [2] && [1, 2][-1:] == [2] then '' else '')"
"""An expression that makes the reference implementation render, not rjsonnet."""
NATIVES = ("pull", "emit", "settings", "of", "known", "more", "profile", "sha1", "sha256")
WAYS = (
    "local s = std; s.native(NAME)",
    "std['na' + 'tive'](NAME)",
    "std[std.join('', ['na', 'tive'])](NAME)",
    "local s = std { x:: 1 }; s.native(NAME)",
    "(std { own(name):: super.native(name) }).own(NAME)",
    "std.get(std, 'native')(NAME)",
    "std.mapWithKey(function(k, v) v, std).native(NAME)",
    "(import 'std.libsonnet').native(NAME)",
    "local f(std) = std.length; local std = (import 'std.libsonnet'); std['nativ' + 'e'](NAME)",
    r"""/* \*/ ' */ std.native(NAME) // '
""",
)
"""Ways to a native function that no parser sees, or that only one of the engines sees."""
PERSON = {"email": "person@example.com"}
ROWS = [Row(orjson.dumps(PERSON))]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "std.libsonnet").write_text("std")
    return tmp_path


def named(way, name):
    return way.replace("NAME", f'"{name}"')


REACHED = [(way, engine) for way in WAYS for engine in ("rjsonnet", "jsonnet")]


@pytest.mark.parametrize(("way", "engine"), amount(REACHED[::3], nightly=REACHED))
@pytest.mark.usefixtures("folder")
def test_no_native_function_can_be_named(rendered, way, engine):
    beyond = REFERENCE if engine == "jsonnet" else ""
    reached = way.replace("NAME", 'event.get("name")')
    source = HEAD + f"local f = {reached};\n" + f"{{ got: if f == null then 1 else f(2) {beyond} }}"
    names = amount(NATIVES[::4], nightly=NATIVES)
    rows = [Row(orjson.dumps(PERSON | {"name": name})) for name in names]

    for result in rendered(source, rows):
        assert isinstance(result, TemplateFailed) or b"person" not in result.body


@pytest.mark.parametrize("way", amount(WAYS[:-1:3], nightly=WAYS[:-1]))
@pytest.mark.usefixtures("folder")
def test_a_native_function_by_another_way_is_an_error_with_its_line(rendered, way):
    source = HEAD + f"local f = {named(way, 'sha1')};\n{{ got: f('a') }}"

    results = rendered(source, ROWS * 4)

    if "mapWithKey" in way:  # it sees no hidden fields
        assert {(each.message, each.line) for each in results} == {("no such field: native", 2)}
    else:
        assert {each.line for each in results} == {2}
        assert "std.native is not defined" in results[0].message


@pytest.mark.parametrize("spelled", ["std.native", "std['native']", "std . native"])
def test_a_native_function_by_name_is_refused_when_the_template_is_loaded(folder, spelled):
    (folder / "t.jsonnet").write_text(f"{{\n  got: {spelled}('pull')(2),\n}}")

    with pytest.raises(TemplateBroken, match="can't call native functions") as raised:
        Renderer(folder, LYTEMPLATES).load("t.jsonnet")

    assert (raised.value.file, raised.value.line) == ("t.jsonnet", 2)


def test_a_native_function_in_an_imported_file_is_refused_too(folder):
    (folder / "t.jsonnet").write_text("import 'h.libsonnet'")
    (folder / "h.libsonnet").write_text("\nstd.native('sha1')('a')")

    with pytest.raises(TemplateBroken, match=r"h\.libsonnet:2:1"):
        Renderer(folder, LYTEMPLATES).load("t.jsonnet")


@pytest.mark.parametrize("engine", ["rjsonnet", *judges()])
def test_no_judge_discloses_a_native_function(folder, engine):
    tried = ",\n".join(f"function() ({named(way, 'profile')}\n)()" for way in WAYS)
    chosen = f"[\n{tried},\nfunction() 'judged'][event.get('at')]()"
    (folder / "t.jsonnet").write_text(HEAD + chosen)
    people = [orjson.dumps(PERSON | {"at": at}) for at in range(len(WAYS) + 1)]

    bundle = TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")
    *found, judged = judge(engine, bundle, people, b"{}", seconds=30)

    assert str(judged).strip() == '"judged"'
    assert [one for one in found if isinstance(one, str) and "person" in one] == []


@pytest.mark.parametrize("word", ["import", "importstr"])
@pytest.mark.parametrize(
    "name",
    [
        "library.libsonnet",
        "std-for-templates.libsonnet",
        "std-for-jsonnet.libsonnet",
        "std-for-rjsonnet.libsonnet",
    ],
)
def test_the_inner_files_of_the_library_cannot_be_imported(folder, word, name):
    (folder / "t.jsonnet").write_text(f"{{\n  a: {word} '{name}',\n}}")

    with pytest.raises(TemplateBroken, match="inner file of the library") as raised:
        TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")

    assert (raised.value.file, raised.value.line) == ("t.jsonnet", 2)


@pytest.mark.parametrize("beyond", ["", REFERENCE])
@pytest.mark.parametrize(
    "trace",
    [
        "std.trace(event.get('email'), 1)",
        "local s = std; s.trace(event.get('email'), 1)",
        "std['tra' + 'ce'](rest=1, str=event.get('email'))",
        "(import 'std.libsonnet').trace(event.get('email'), 1)",
        "std.foldl(std.trace, [event.get('email')], 'x') + ''",
    ],
)
@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.usefixtures("folder")
def test_a_trace_prints_nobody_and_gives_its_value(rendered, trace, beyond, compiles, capfd):
    source = HEAD + f"{{ a: {trace}, b: 'x'{beyond} }}"

    results = rendered(source, ROWS, compiles=compiles)

    assert all(isinstance(each, Rendered) for each in results)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("source", ["std.trace(1, 2)", "local s = std; s.trace(null, 2)"])
def test_a_trace_of_what_is_no_text_fails_as_it_does_at_lytics(rendered, source):
    results = rendered(source, ROWS)

    assert {type(each) for each in results} == {TemplateFailed}
    assert {each.line for each in results} == {1}


def test_a_throw_away_process_reaches_no_native_function(folder):
    source = HEAD + "local s = std;\n{ got: s.native('pull')(0) }"
    (folder / "t.jsonnet").write_text(source)

    results = render_isolated(
        TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet"),
        ROWS,
        seconds=20,
        memory_bytes=2_000_000_000,
    )

    assert {type(each) for each in results} == {TemplateFailed}
    assert {each.line for each in results} == {3}
