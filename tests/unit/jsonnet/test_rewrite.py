import json

import pytest
import rjsonnet
from hypothesis import given, settings
from hypothesis import strategies as st

from segrelay.jsonnet.engines.failures import HASHES
from segrelay.jsonnet.engines.rows_evaluator import RJSONNET_LACKS, RJSONNET_STD, rewrite, untouched
from segrelay.jsonnet.files import TemplateFolder, resolutions
from segrelay.jsonnet.rendered import Rendered, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from tests.nightly import amount

PROFILE = b'{"a": "one", "b": [1, 2], "segment_events": [{"slug": "vip", "event": "enter"}]}'
HELPERS = {
    "plain.libsonnet": "{ x: 1, y(v):: [v] }",
    "needs.libsonnet": 'local e = import "lytemplates.libsonnet";\n'
    '{ a: e.get("a"), slug: e.segSlug() }',
    "through.libsonnet": "{ inner: (import 'needs.libsonnet').a, x: (import 'plain.libsonnet').x }",
    "text.txt": 'import "lytemplates.libsonnet"',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates")
    for name, text in HELPERS.items():
        (path / name).write_text(text)
    return path


def _plain(folder, name):
    """The value by the untouched files, or None for an error."""
    bundle = TemplateFolder(folder, LYTEMPLATES).bundle(name)
    plain = untouched(bundle, RJSONNET_STD, RJSONNET_LACKS)
    sources = {**LYTEMPLATES.inner_sources, **plain.sources}
    resolve = resolutions(bundle)

    def imported(importer, path):
        found = resolve.get((importer.rstrip("/"), path), path)
        return found, sources[found]

    try:
        text = rjsonnet.evaluate_snippet(
            "/main",
            f"import '{plain.root}'",
            import_callback=imported,
            native_callbacks={
                "profile": ((), PROFILE.decode),
                "settings": ((), lambda: '{"k": "v"}'),
                **HASHES,
            },
        )
    except RuntimeError:
        return None
    return json.loads(text)


def _batched(folder, name):
    renderer = Renderer(folder, LYTEMPLATES)
    result = renderer.render(renderer.load(name), [Row(PROFILE, {"k": "v"})] * 3)
    assert result == [result[0]] * 3
    return json.loads(result[0].body) if isinstance(result[0], Rendered) else None


_LIBRARY = st.sampled_from(
    [
        'import "lytemplates.libsonnet"',
        "import 'lytemplates.libsonnet'",
        "import @'lib/lytemplates.libsonnet'",
        'import\n/* which? */\t"./x/lytemplates.libsonnet"',
        "import // a comment\n'lytemplates.libsonnet'",
    ]
)
_LITERALS = st.sampled_from(
    [
        "1",
        "null",
        "\"import 'lytemplates.libsonnet'\"",
        "'// no \"comment\"'",
        "@'it''s \\ \"import\"'",
        "|||\n  import 'lytemplates.libsonnet' // text\n\n   |||\n|||",
        "importstr 'text.txt'",
        "local _0 = 5; _0",
        "std.length(std.trim(' x '))",
        "(error 'no')",
        "/* import 'x' */ 2",
        "# import 'y'\n3",
        "{ import_: 1, 'import': 2 }",
        "(function(_1) _1)(7)",
    ]
)
_LOOKUPS = st.builds(
    lambda library, call: f"({library}).{call}",
    _LIBRARY,
    st.sampled_from(
        ["get('a')", "get('none', 4)", "segSlug()", "jobConfGet('k')", "has('b')", "get('b')[1]"]
    ),
)
_HELPED = st.sampled_from(
    [
        "(import 'plain.libsonnet').y(2)",
        '(import "needs.libsonnet")',
        "(import 'through.libsonnet').inner",
        "local h = import 'needs.libsonnet'; h { more: h.slug }",
        "(import './needs.libsonnet').slug",
    ]
)
_EXPRESSIONS = st.recursive(
    _LITERALS | _LOOKUPS | _HELPED,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda each: f"[{', '.join(each)}]"),
        st.lists(inner, max_size=4).map(
            lambda each: "{" + ", ".join(f"f{i}: {e}" for i, e in enumerate(each)) + "}"
        ),
        st.tuples(inner, inner).map(lambda pair: f"local _2 = ({pair[0]}); [_2, {pair[1]}]"),
        inner.map(lambda e: f"(if true then {e} else null)"),
    ),
    max_leaves=8,
)


@settings(max_examples=amount(30, nightly=2_000))
@given(source=_EXPRESSIONS, prefix=st.sampled_from(["", "// first\n", "\r\n", "\n\n/* x\n*/ "]))
def test_rewriting_never_changes_what_the_plain_engine_yields(folder, source, prefix):
    (folder / "t.jsonnet").write_text(prefix + source, newline="")

    assert _batched(folder, "t.jsonnet") == _plain(folder, "t.jsonnet")


def _rewritten(folder, source):
    (folder / "t.jsonnet").write_text(source)
    return rewrite(TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet"))


def test_columns_and_lines_stay(folder):
    source = "local e = import 'lytemplates.libsonnet';\n{ a: import\n 'needs.libsonnet', b: e }"

    rewritten = _rewritten(folder, source)
    head, *lines = rewritten.sources[rewritten.root].split("\n")

    assert head.startswith("function(")
    assert list(map(len, lines)) == list(map(len, source.split("\n")))
    assert rewritten.headed == {"templates:/t.jsonnet", "templates:/needs.libsonnet"}


def test_a_helper_that_does_not_need_the_library_is_untouched(folder):
    rewritten = _rewritten(folder, "(import 'plain.libsonnet').x + importstr 'text.txt'")

    assert rewritten.sources["templates:/plain.libsonnet"] == HELPERS["plain.libsonnet"]
    assert rewritten.sources["templates:/text.txt"] == HELPERS["text.txt"]


def test_helpers_that_import_each_other_render(folder):
    (folder / "ping.libsonnet").write_text(
        "local e = import 'lytemplates.libsonnet';\n"
        "{ a: e.get('a'), b: (import 'pong.libsonnet').c }"
    )
    (folder / "pong.libsonnet").write_text("{ c: (import 'ping.libsonnet').a }")
    (folder / "t.jsonnet").write_text("import 'ping.libsonnet'")

    assert _batched(folder, "t.jsonnet") == {"a": "one", "b": "one"}


def test_a_name_that_the_file_uses_is_not_taken(folder):
    (folder / "t.jsonnet").write_text(
        "local _0 = 'mine'; [_0, (import 'lytemplates.libsonnet').get('a')]"
    )

    assert _batched(folder, "t.jsonnet") == ["mine", "one"]
