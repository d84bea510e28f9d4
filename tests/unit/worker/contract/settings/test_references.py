"""A text that names a secret is understood as one or refused; it is never taken literally."""

import re

import pytest

from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.settings.checks import misplaced_references
from segrelay.worker.errors import ConfigurationInvalid
from tools.reference import configuration_page

PAGE = configuration_page()
ROW = re.compile(r"\| `(\w+)` \| ([^|]+) \|")


def locations(*kinds):
    """Yield the path of each key of these kinds, as the page of the configuration has them."""
    for part in PAGE.split("\n## `[")[1:]:
        header = part.partition("]`")[0]
        for key, kind in ROW.findall(part):
            if any(word in kind for word in kinds):
                yield (*header.replace("NAME", "x").split("."), key)


def document_of(path, value):
    for step in reversed(path):
        value = {step: value}
    return value


@pytest.mark.parametrize("path", list(locations("secret")), ids=".".join)
def test_every_secret_of_the_page_may_be_named(path):
    is_table = path[-1] in {"headers", "parameters", "extra"}
    value = {"any": "env:NAME"} if is_table else "env:NAME"

    assert list(misplaced_references(document_of(path, value))) == []


@pytest.mark.parametrize("reference", ["env:NAME", "file:name.txt"])
def test_a_name_where_none_is_understood_is_an_error_with_its_place(tmp_path, reference):
    (tmp_path / "templates").mkdir()
    (tmp_path / "segrelay.toml").write_text(
        f'[authorizations.a]\nscope = "{reference}"\ntype = "basic"\nuser = "env:USER"\n'
    )

    with pytest.raises(ConfigurationInvalid) as caught:
        load_settings(tmp_path / "segrelay.toml", environ={})

    says = "authorizations.a.scope: names a secret, which is not understood here"
    assert says in str(caught.value)
    assert "user" not in str(caught.value)


def test_notes_may_hold_any_text():
    document = {"triggers": {"x": {"description": "env: is for secrets"}}}

    assert list(misplaced_references(document)) == []
