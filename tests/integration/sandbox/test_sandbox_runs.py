"""Where a sandbox runs, no command works on the real Redis by mistake."""

import pytest
from typer.testing import CliRunner

from segrelay.ops.config.commands import init
from segrelay.ops.embedded import stop
from segrelay.ops.main import app
from segrelay.ops.sandbox import forget_sandbox_run, marked_as_sandbox_run
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import UsageWrong

SANDBOX = "http://127.0.0.1:8901"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    init(tmp_path)
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))
    monkeypatch.setenv("SEGRELAY_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SEGRELAY_SANDBOX", "")
    return tmp_path


@pytest.fixture
def settings(folder):
    """The configuration of a sandbox run in the folder."""
    yield load_settings(environ={"SEGRELAY_CONFIG": str(folder / "segrelay.toml"), **IN_SANDBOX})
    stop(folder / ".segrelay-sandbox")


IN_SANDBOX = {"SEGRELAY_SANDBOX": SANDBOX}
ON_REDIS = {
    "send": ("send", "-"),
    "backfill": ("backfill", "status"),
    "status": ("status",),
    "check": ("status", "--check"),
    "pause": ("pause", "insider"),
    "erase": ("erase", "ann@example.com"),
    "discard": ("discard", "--all"),
    "redis": ("redis", "status"),
    "up": ("up",),
    "worker": ("worker",),
    "serve": ("serve",),
    "flower": ("flower",),
    "metrics": ("metrics",),
}


def called(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("command", ON_REDIS.values(), ids=ON_REDIS)
def test_a_command_is_refused_and_says_which_variable_is_missing(settings, command):
    with marked_as_sandbox_run(settings, SANDBOX):
        refused = called(*command)

    assert isinstance(refused.exception, UsageWrong)
    assert f"export SEGRELAY_SANDBOX={SANDBOX}" in refused.exception.message
    assert "--real" in refused.exception.message


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        (SANDBOX, ("--real", "redis", "status")),
        (SANDBOX, ("redis", "status", "--real")),
        ("0", ("redis", "status")),
    ],
)
def test_real_takes_the_real_redis_as_zero_in_the_variable_does(
    settings, monkeypatch, variable, command
):
    monkeypatch.setenv("SEGRELAY_SANDBOX", variable)
    with marked_as_sandbox_run(settings, SANDBOX):
        told = called(*command)

    assert "127.0.0.1:1" in told.exception.message


@pytest.mark.parametrize("command", [("config", "check"), ("config", "show"), ("template", "list")])
def test_what_needs_no_redis_is_not_refused(settings, command):
    with marked_as_sandbox_run(settings, SANDBOX):
        assert called(*command).exit_code == 0


def test_a_sandbox_run_that_has_ended_refuses_nothing(settings):
    with marked_as_sandbox_run(settings, SANDBOX):
        pass

    assert "127.0.0.1:1" in called("redis", "status").exception.message


def test_a_reset_leaves_alone_what_no_sandbox_run_has_made(settings, folder):
    mine = folder / ".segrelay-sandbox" / "mine.rdb"
    mine.parent.mkdir()
    mine.write_text("mine")

    assert not forget_sandbox_run(settings)
    assert mine.exists()
