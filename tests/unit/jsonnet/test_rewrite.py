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
    "ping.libsonnet": 'local e = import "lytemplates.libsonnet";\n'
    "{ a: e.get('a'), b: (import 'pong.libsonnet').c }",
    "pong.libsonnet": "{ c: (import 'ping.libsonnet').a }",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates")
    for name, text in HELPERS.items():
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize(
    "source",
    [
        "(import @'lib/lytemplates.libsonnet').get('a')",
        "// first\n(import\n/* which? */\t\"./x/lytemplates.libsonnet\").get('a')",
        "\r\nlocal e = import // a comment\n'lytemplates.libsonnet'; e.get('a')",
        "local h = import 'needs.libsonnet'; (h { more: h.slug }).a",
        "(import 'through.libsonnet').inner",
        "(import 'ping.libsonnet').b",
        "local x = \"import 'lytemplates.libsonnet'\"; (import './needs.libsonnet').a",
        "local _1 = importstr 'text.txt'; (import 'lytemplates.libsonnet').get('a')",
        # A name that the file uses is not taken.
        "local _0 = 'mine'; if _0 == 'mine' then (import 'lytemplates.libsonnet').get('a')",
        "local t = |||\n  import 'x' // text\n|||; (import 'needs.libsonnet').a",
    ],
)
def test_an_import_of_the_library_however_it_is_written_is_the_events(folder, source):
    (folder / "t.jsonnet").write_text(source, newline="")
    renderer = Renderer(folder, LYTEMPLATES, compiles=False)

    results = renderer.render(renderer.load("t.jsonnet"), [Row(PROFILE, {"k": "v"})] * 3)

    assert results == [Rendered(b'"one"')] * 3
