"""Secrets that more people can read than need to are named, and never printed."""

from pathlib import Path

import pytest

from segrelay.worker.contract.settings import load_settings

TEXT = """\
[redis]
url = "redis://:hunter2@redis.example.com:6379/0"
[authorizations.insider]
headers = {{ X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "{secret}" }}
parameters = {{ key = "{secret}" }}
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
authorization = "insider"
rate = "25000/min"
[producer.webhook]
secret = ["env:SET", "{secret}"]
[flower]
password = "{secret}"
[lytics]
token = "{secret}"
"""
LOCATIONS = {
    "authorizations.insider.headers.X-REQUEST-TOKEN",
    "authorizations.insider.parameters.key",
    "producer.webhook.secret",
    "flower.password",
    "lytics.token",
    "redis.url",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    return tmp_path


def warned(folder: Path, secret: str, **environ: str) -> set[str]:
    """The places whose secret stands in the file."""
    file = folder / "segrelay.toml"
    file.write_text(TEXT.format(secret=secret))
    warnings = load_settings(file, environ={"SET": "s", **environ}).warnings
    assert "hunter2" not in str(warnings)
    return {line.split(": ")[1] for line in warnings if "itself stands in this file" in line}


def test_a_secret_that_stands_in_the_file_itself_is_named(folder: Path) -> None:
    assert warned(folder, "hunter2") == LOCATIONS


def test_a_secret_from_somewhere_else_is_not(folder: Path) -> None:
    assert warned(folder, "env:SET") == {"redis.url"}
    assert warned(folder, "env:SET", SEGRELAY_REDIS_URL="redis://:hunter2@127.0.0.1") == set()


@pytest.mark.parametrize(("mode", "is_named"), [(0o644, True), (0o640, False), (0o600, False)])
def test_an_env_file_that_everybody_can_read_is_named(
    folder: Path, mode: int, is_named: bool
) -> None:
    (folder / ".env").write_text("SET=hunter2\n")
    (folder / ".env").chmod(mode)
    (folder / "segrelay.toml").write_text(TEXT.format(secret="env:SET"))

    warnings = load_settings(folder / "segrelay.toml", environ={}).warnings

    assert any("chmod 600 .env" in line for line in warnings) is is_named
    assert "hunter2" not in str(warnings)
