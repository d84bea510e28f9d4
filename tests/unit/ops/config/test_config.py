import orjson
import pytest
from typer.testing import CliRunner

from segrelay.ops.main import app


def test_each_problem_of_the_form_is_a_line_and_nothing_is_rendered(tmp_path, monkeypatch):
    (tmp_path / "segrelay.toml").write_text("one = 1\ntwo = 2\n[triggers.vip]\n")
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))

    result = CliRunner().invoke(app, ["config", "check", "--json"])

    found = orjson.loads(result.stdout)
    assert result.exit_code == 2
    assert [line.split(": ")[1] for line in found["problems"]][-2:] == ["one", "two"]
    assert (found["valid"], found["right"], found["warnings"]) == (False, False, [])


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ([], 0, "can be loaded; see the 3 warnings above"),
        (["--strict"], 2, "can be loaded"),
        (["--json"], 0, '"right":false'),
        (["--strict", "--json"], 2, '"valid":true'),
    ],
)
def test_a_configuration_that_cannot_send_is_never_called_right(
    tmp_path, monkeypatch, options, code, told
):
    (tmp_path / "templates").mkdir()
    file = tmp_path / "segrelay.toml"
    file.write_text(
        '[authorizations.a]\nheaders = { X-PARTNER-NAME = "env:UNSET_ONE" }\n'
        '[destinations.d]\napi = "insider"\nauthorization = "a"\nrate = "1/s"\n'
        'base_url = "https://unification.useinsider.com"\n'
    )
    monkeypatch.setenv("SEGRELAY_CONFIG", str(file))

    result = CliRunner().invoke(app, ["config", "check", *options])

    assert result.exit_code == code
    assert told in result.output.replace('": ', '":')
    assert "is right" not in result.output
    for named in ("X-REQUEST-TOKEN is missing", "env:UNSET_ONE is not set"):
        assert named in result.output


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    file = tmp_path / "segrelay.toml"
    file.write_text(
        '[authorizations.a]\nheaders = { X-TOKEN = "env:T" }\n'
        '[redis]\nurl = "redis://u:hunter2@127.0.0.1:1"\n'
    )
    monkeypatch.setenv("SEGRELAY_CONFIG", str(file))
    monkeypatch.setenv("T", "hunter2")
    return file


def test_show_prints_one_document_without_secrets(config):
    result = CliRunner().invoke(app, ["config", "show", "--json"])

    document = orjson.loads(result.stdout)
    assert result.exit_code == 0
    assert document["authorizations"]["a"]["headers"] == {"X-TOKEN": "set"}
    assert document["redis"]["url"] == "redis://***@127.0.0.1:1"
    assert document["source"] == str(config)
    assert "hunter2" not in result.output


OAUTH2 = """
[authorizations.crm]
type = "oauth2"
token_url = "https://login.example.com/token?key=hunter2"
client_id = "us"
client_secret = "hunter2"
[redis]
url = "redis://u:hunter2@127.0.0.1:1"
[delivery]
lease = "7s"
"""


@pytest.mark.usefixtures("config")
def test_show_prints_a_line_for_each_value_of_the_file_that_an_option_names(tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(OAUTH2)

    result = CliRunner().invoke(app, ["--config", str(other), "config", "show"])

    assert {
        f"source = {other}",
        "redis.partitions = 16",
        "delivery.lease = 7s",
        "authorizations.crm.token_url = https://login.example.com/token?***",
    } <= set(result.stdout.splitlines())
    assert "hunter2" not in result.output


def test_the_place_of_a_template_that_does_not_parse_is_told_once(tmp_path):
    CliRunner().invoke(app, ["init", str(tmp_path)])
    file = tmp_path / "templates" / "insider" / "enter.jsonnet"
    file.write_text("{ a: 1 }\n}\n")

    told = (
        CliRunner()
        .invoke(app, ["config", "check", "--config", str(tmp_path / "segrelay.toml")])
        .stderr
    )

    assert "segrelay.toml: triggers.vip-enter: " in told
    assert told.count("insider/enter.jsonnet:2:1") == 1
