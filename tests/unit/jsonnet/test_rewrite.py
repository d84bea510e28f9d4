import json

import pytest

from segrelay.jsonnet.rendered import Rendered, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES

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


def _batched(folder, name):
    renderer = Renderer(folder, LYTEMPLATES, compiles=False)
    result = renderer.render(renderer.load(name), [Row(PROFILE, {"k": "v"})] * 3)
    assert result == [result[0]] * 3
    return json.loads(result[0].body) if isinstance(result[0], Rendered) else None


@pytest.mark.parametrize(
    "source",
    [
        "(import @'lib/lytemplates.libsonnet').get('a')",
        "// first\n(import\n/* which? */\t\"./x/lytemplates.libsonnet\").get('a')",
        "\r\nlocal e = import // a comment\n'lytemplates.libsonnet'; e.get('a')",
        "local h = import 'needs.libsonnet'; (h { more: h.slug }).a",
        "(import 'through.libsonnet').inner",
        "local x = \"import 'lytemplates.libsonnet'\"; (import './needs.libsonnet').a",
        "local _1 = importstr 'text.txt'; (import 'lytemplates.libsonnet').get('a')",
        "local t = |||\n  import 'x' // text\n|||; (import 'needs.libsonnet').a",
    ],
)
def test_an_import_of_the_library_however_it_is_written_is_the_events(folder, source):
    (folder / "t.jsonnet").write_text(source, newline="")

    assert _batched(folder, "t.jsonnet") == "one"


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
