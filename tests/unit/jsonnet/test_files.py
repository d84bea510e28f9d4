import pytest

from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "templates"
    (path / "insider").mkdir(parents=True)
    (path / "shared.libsonnet").write_text("{ x: 1 }")
    (path / "insider" / "near.libsonnet").write_text("{ y: 2 }")
    return path


def _broken(folder, source):
    (folder / "insider" / "t.jsonnet").write_text(source)
    with pytest.raises(TemplateBroken) as caught:
        Renderer(folder, LYTEMPLATES).load("insider/t.jsonnet")
    return caught.value


def test_an_import_that_is_unreachable_is_refused_too(folder):
    unreachable = "if true then 1 else import 'missing.libsonnet'"

    assert "missing.libsonnet" in _broken(folder, unreachable).message


def test_files_beside_above_and_in_the_shipped_folder_are_found(folder):
    (folder / "insider" / "t.jsonnet").write_text(
        "[import 'near.libsonnet', import '../shared.libsonnet', import 'shared.libsonnet',"
        " import 'values.libsonnet', import 'lytemplates.libsonnet']"
    )

    bundle = TemplateFolder(folder, LYTEMPLATES).bundle("insider/t.jsonnet")

    assert set(bundle.files) == {
        "templates:/insider/t.jsonnet",
        "templates:/insider/near.libsonnet",
        "templates:/shared.libsonnet",
        "lib:/library.libsonnet",
        "lib:/values.libsonnet",
        "lib:/lytemplates.libsonnet",
    }


def test_a_templates_folder_that_is_itself_a_link_works(folder, tmp_path):
    (tmp_path / "current").symlink_to(folder)
    (folder / "insider" / "t.jsonnet").write_text("import '../shared.libsonnet'")

    assert Renderer(tmp_path / "current", LYTEMPLATES).load("insider/t.jsonnet").content_hash


def test_the_hash_follows_the_content_of_imports(folder):
    (folder / "insider" / "t.jsonnet").write_text("import 'near.libsonnet'")
    before = Renderer(folder, LYTEMPLATES).load("insider/t.jsonnet")

    (folder / "insider" / "near.libsonnet").write_text("{ y: 3 }")
    after = Renderer(folder, LYTEMPLATES).load("insider/t.jsonnet")

    assert len(before.content_hash) == 12
    assert before.content_hash != after.content_hash


@pytest.mark.parametrize(
    ("source", "location", "words"),
    [
        ("{ a: nobody }", (1, 6), "unknown variable"),
        ("// nothing", (1, 1), "empty"),
        ('{ a: "\\_uid" }', (1, 7), "Markdown"),
        ("[" * 201 + "]" * 201, (1, 201), "nested"),
    ],
)
def test_what_does_not_parse_is_named_with_its_place(folder, source, location, words):
    error = _broken(folder, source)

    assert words in error.message
    assert (error.file, error.line, error.column) == ("insider/t.jsonnet", *location)


def test_a_file_that_is_no_text_is_refused(folder):
    (folder / "insider" / "picture.png").write_bytes(b"\x89PNG\xff")

    assert "UTF-8" in _broken(folder, "importstr 'picture.png'").message
