"""Which files templates use, and what becomes of their digests when one is changed."""

import json

import pytest

from segrelay.jsonnet.files import UsedFiles


@pytest.fixture
def folder(tmp_path):
    files = {
        "insider/enter.jsonnet": 'import "near.libsonnet"',
        "insider/near.libsonnet": "importstr 'texts/greeting.txt'",
        "texts/greeting.txt": "hello",
        "url.jsonnet": 'local lib = import "lytemplates.libsonnet"; lib',
        "draft.jsonnet": "{}",
    }
    for name, text in files.items():
        path = tmp_path / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "templates"


def test_a_template_uses_itself_and_all_that_it_imports(folder):
    found = UsedFiles(folder, ["insider/enter.jsonnet"]).digests()

    assert list(found) == ["insider/enter.jsonnet", "insider/near.libsonnet", "texts/greeting.txt"]


def test_a_name_of_several_templates_means_each_of_them(folder):
    name = json.dumps({"body": "insider/enter.jsonnet", "url": "url.jsonnet"})

    assert {"insider/enter.jsonnet", "url.jsonnet"} <= UsedFiles(folder, [name]).digests().keys()


def test_a_changed_file_has_another_digest(folder):
    files = UsedFiles(folder, ["insider/enter.jsonnet"])
    before = dict(files.digests())

    (folder / "texts" / "greeting.txt").write_text("good morning")
    after = files.digests()

    assert [name for name in before if before[name] != after[name]] == ["texts/greeting.txt"]


@pytest.mark.parametrize("path", ["../../secret.txt", "/etc/hostname", "\0", "missing.libsonnet"])
def test_what_is_outside_or_not_there_is_no_file_that_is_used(folder, path):
    (folder / "url.jsonnet").write_text(f"importstr '{path}'")

    assert list(UsedFiles(folder, ["url.jsonnet"]).digests()) == ["url.jsonnet"]
