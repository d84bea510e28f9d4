"""In a sandbox run nothing real is reached."""

import pytest

from segrelay.worker.contract.settings import DEFAULT_SANDBOX, load_settings
from segrelay.worker.errors import ConfigurationInvalid

CONFIGURATION = """
[redis]
url = "redis://:real-password@redis.example.com:6379/0"
broker_url = "redis://broker.example.com"
[authorizations.insider]
headers = { X-PARTNER-NAME = "real-partner", X-REQUEST-TOKEN = "env:NOT_SET" }
parameters = { key = "real-key" }
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
authorization = "insider"
rate = "25000/min"
[triggers.enter]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "insider/enter.jsonnet"
url = "https://unification.useinsider.com/api/user/v1/upsert"
[lytics]
token = "real-token"
[flower]
password = "env:NOT_SET"
"""


def load(tmp_path, value):
    (tmp_path / "templates" / "insider").mkdir(parents=True)
    (tmp_path / "templates" / "insider" / "enter.jsonnet").write_text("{}")
    (tmp_path / "segrelay.toml").write_text(CONFIGURATION)
    environ = {"SEGRELAY_SANDBOX": value, "SEGRELAY_REDIS_URL": "redis://override.example.com"}
    return load_settings(tmp_path / "segrelay.toml", environ=environ)


@pytest.mark.parametrize("value", ["1", DEFAULT_SANDBOX, "http://localhost:9000/"])
def test_no_real_address_and_no_secret_is_left(tmp_path, value):
    settings = load(tmp_path, value)

    sandbox = DEFAULT_SANDBOX if value == "1" else value.rstrip("/")
    authorization = settings.authorizations["insider"]
    assert settings.url_of(settings.triggers["enter"]) == f"{sandbox}/api/user/v1/upsert"
    assert settings.redis.url == "embedded"
    assert settings.redis.broker_url == ""
    assert settings.redis.data_dir == tmp_path / ".segrelay-sandbox"
    assert settings.lytics.base_url == sandbox
    assert {secret.reveal() for secret in authorization.headers.values()} == {"sandbox"}
    assert authorization.parameters == {}
    assert settings.lytics.token.reveal() == "sandbox"
    assert settings.flower is None
    document = repr(settings.model_dump(exclude={"warnings"}))
    assert "real-" not in document
    assert ".com" not in document
    assert any("sandbox run" in warning for warning in settings.warnings)


@pytest.mark.parametrize("value", ["", "0"])
def test_without_the_variable_everything_is_real(tmp_path, value):
    assert load(tmp_path, value).redis.url == "redis://override.example.com"


@pytest.mark.parametrize("value", ["yes", "https://unification.useinsider.com", "http://10.0.0.1"])
def test_only_this_machine_can_have_the_sandbox(tmp_path, value):
    with pytest.raises(ConfigurationInvalid, match="SEGRELAY_SANDBOX"):
        load(tmp_path, value)
