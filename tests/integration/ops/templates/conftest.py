"""A folder with a template, and the commands about it."""

import pytest
from typer.testing import CliRunner

from segrelay.ops.main import app
from tests.configuration import NOBODY_LISTENS_URL, configuration, insider, table, trigger


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a template, and a configuration whose trigger renders it; return the folder."""
    folder, config = tmp_path / "templates", tmp_path / "segrelay.toml"
    folder.mkdir()
    monkeypatch.setenv("SEGRELAY_CONFIG", str(config))
    monkeypatch.setenv("TOKEN", "token")

    def write(name, text, *, redis="embedded", lytics_url=NOBODY_LISTENS_URL):
        (folder / name).write_text(text)
        tables = (
            insider(base_url=NOBODY_LISTENS_URL),
            trigger("vip-enter", audiences=["*"], template=name),
            table("lytics", base_url=lytics_url, token="env:TOKEN"),
        )
        config.write_text(configuration(*tables, redis=redis, data_dir=f"{tmp_path}/data"))
        return folder

    return write


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(app, ["template", *(str(argument) for argument in arguments)])

    return invoke
