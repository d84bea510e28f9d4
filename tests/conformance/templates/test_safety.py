"""What a template may not do: each violation is a message."""

import pytest

from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Row, TemplateBroken, TemplateFailed
from segrelay.jsonnet.renderer import MAX_BODY_BYTES, Renderer
from segrelay.templates import LYTEMPLATES


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "templates"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "linked").symlink_to(tmp_path / "private")
    return folder


@pytest.mark.parametrize("word", ["import", "importstr"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../secret.txt", "leads outside"),
        ("sub/../../secret.txt", "leads outside"),
        ("link.txt", "leads outside"),
        ("linked/key.txt", "leads outside"),
        ("/etc/hostname", "absolute path"),
        ("none.txt", "neither beside"),
        ("https://example.com/a", "neither beside"),
        ("", "is not a path"),
    ],
)
def test_a_file_outside_cannot_be_read(folder, word, path, said):
    (folder / "t.jsonnet").write_text(f"{{\n  a: {word} '{path}',\n}}")

    with pytest.raises(TemplateBroken, match=said) as raised:
        TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")

    assert (raised.value.file, raised.value.line, raised.value.column) == ("t.jsonnet", 2, 6)
    assert "secret" not in raised.value.message.replace("secret.txt", "")


def test_an_import_in_an_imported_file_is_held_to_the_same(folder):
    (folder / "t.jsonnet").write_text("import 'part.libsonnet'")
    (folder / "part.libsonnet").write_text("{ a: importstr '../secret.txt' }")

    with pytest.raises(TemplateBroken, match=r"part\.libsonnet:1:6") as raised:
        TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")

    assert "leads outside" in raised.value.message


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "link.txt"])
def test_a_template_itself_lies_inside(folder, name):
    with pytest.raises(TemplateBroken):
        TemplateFolder(folder, LYTEMPLATES).bundle(name)


def test_brackets_without_end_are_refused(folder):
    (folder / "t.jsonnet").write_text("[" * 300 + "]" * 300)

    with pytest.raises(TemplateBroken, match="nested deeper than 200"):
        Renderer(folder, LYTEMPLATES).load("t.jsonnet")


@pytest.mark.parametrize("compiles", [True, False])
def test_a_body_that_no_request_can_hold_fails_that_event(rendered, compiles):
    text = f"{{ a: std.repeat('{'x' * 1_000}', {MAX_BODY_BYTES // 1_000}) }}"
    source = (
        f"local e = import 'lytemplates.libsonnet'; if e.get('n') > 1 then {text} else {{ a: 1 }}"
    )

    large, small = rendered(source, [Row(b'{"n": 2}'), Row(b'{"n": 1}')], compiles=compiles)

    assert isinstance(large, TemplateFailed)
    assert "bytes" in large.message
    assert small.body.replace(b" ", b"") == b'{"a":1}'
