import orjson
import pytest
from typer.testing import CliRunner

from segrelay.ops.main import app


@pytest.fixture
def run(tmp_path):
    """Run a command of `config` with a configuration."""
    (tmp_path / "templates").mkdir()
    file = tmp_path / "segrelay.toml"

    def write_and_run(text, command, *options):
        file.write_text(text)
        return CliRunner().invoke(app, ["config", command, *options, "--config", str(file)])

    return write_and_run


def test_each_problem_of_the_form_is_a_line_and_nothing_is_rendered(run):
    result = run("one = 1\ntwo = 2\n[triggers.vip]\n", "check", "--json")

    found = orjson.loads(result.stdout)
    assert result.exit_code == 2
    assert [line.split(": ")[1] for line in found["problems"]][-2:] == ["one", "two"]
    assert (found["valid"], found["right"], found["warnings"]) == (False, False, [])


UNSET = """
[authorizations.a]
headers = { X-PARTNER-NAME = "env:UNSET_ONE" }
[destinations.d]
api = "insider"
authorization = "a"
rate = "1/s"
base_url = "https://unification.useinsider.com"
"""


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ([], 0, "can be loaded; see the 3 warnings above"),
        (["--strict"], 2, "can be loaded"),
        (["--json"], 0, '"right":false'),
        (["--strict", "--json"], 2, '"valid":true'),
    ],
)
def test_a_configuration_that_cannot_send_is_never_called_right(run, options, code, told):
    result = run(UNSET, "check", *options)

    assert result.exit_code == code
    assert told in result.output.replace('": ', '":')
    assert "is right" not in result.output
    for named in ("X-REQUEST-TOKEN is missing", "env:UNSET_ONE is not set"):
        assert named in result.output


SECRETS = """
[authorizations.a]
headers = { X-TOKEN = "env:T" }
[redis]
url = "redis://u:hunter2@127.0.0.1:1"
"""


def test_show_prints_one_document_without_secrets(run, tmp_path, monkeypatch):
    monkeypatch.setenv("T", "hunter2")

    result = run(SECRETS, "show", "--json")

    document = orjson.loads(result.stdout)
    assert result.exit_code == 0
    assert document["authorizations"]["a"]["headers"] == {"X-TOKEN": "set"}
    assert document["redis"]["url"] == "redis://***@127.0.0.1:1"
    assert document["source"] == str(tmp_path / "segrelay.toml")
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


def test_show_prints_a_line_for_each_value_of_the_file_that_an_option_names(tmp_path, monkeypatch):
    (tmp_path / "segrelay.toml").write_text("")
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))
    (tmp_path / "templates").mkdir()
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
    (tmp_path / "templates" / "insider" / "enter.jsonnet").write_text("{ a: 1 }\n}\n")

    file = tmp_path / "segrelay.toml"
    told = CliRunner().invoke(app, ["config", "check", "--config", str(file)]).stderr

    assert "segrelay.toml: triggers.vip-enter: " in told
    assert told.count("insider/enter.jsonnet:2:1") == 1
