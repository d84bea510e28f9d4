"""Authorizations of each type: what they need, what they send, what is said about a wrong one."""

import pytest

from segrelay.worker.contract.settings import load_settings, sandboxed
from segrelay.worker.contract.settings.http import secrets_of
from segrelay.worker.errors import ConfigurationInvalid

DESTINATION = """
[destinations.crm]
api = "http"
base_url = "https://crm.example.com"
authorization = "crm"
rate = "10/s"
"""
OAUTH2 = """
[authorizations.crm]
type = "oauth2"
token_url = "https://login.example.com/token"
client_id = "us"
client_secret = "env:CRM_SECRET"
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "templates").mkdir()

    def loaded(text, **environ):
        (tmp_path / "segrelay.toml").write_text(text + DESTINATION)
        return load_settings(tmp_path / "segrelay.toml", environ=environ)

    return loaded


def test_a_token_goes_into_a_bearer_header_unless_the_table_says_where(load):
    usual = load(OAUTH2, CRM_SECRET="s").authorizations["crm"]
    own = load(OAUTH2 + 'parameters = { access = "{token}" }', CRM_SECRET="s")

    assert usual.revealed_headers() == {"Authorization": "Bearer {token}"}
    assert own.authorizations["crm"].revealed_headers() == {}
    assert own.authorizations["crm"].revealed_parameters() == {"access": "{token}"}
    assert not [warning for warning in own.warnings if "parameters" in warning]


def test_a_name_and_a_password_go_into_a_basic_header(load):
    text = '[authorizations.crm]\ntype = "basic"\nuser = "us"\npassword = "env:CRM_PASSWORD"\n'

    found = load(text, CRM_PASSWORD="a:b").authorizations["crm"]

    assert found.revealed_headers() == {"Authorization": "Basic dXM6YTpi"}


AWS = """
[authorizations.crm]
type = "aws"
access_key = "env:CRM_KEY"
secret_key = "env:CRM_SECRET"
region = "eu-central-1"
service = "execute-api"
"""


def test_a_sandbox_run_needs_no_key_to_sign_with(load):
    aws = sandboxed(load(AWS), "http://127.0.0.1:8900").authorizations["crm"]

    assert aws.secret_key.reveal() == "sandbox"


WRONG = {
    OAUTH2.replace("client_id", "#"): 'client_id: is needed for type = "oauth2"',
    OAUTH2 + 'user = "us"': 'user: is for type = "basic" only',
    OAUTH2 + 'region = "eu"': 'region: is for type = "aws" only',
    OAUTH2.replace("client_secret", "#"): 'client_secret: is needed for type = "oauth2"',
    OAUTH2 + 'grant = "jwt"': "grant: unknown key",
    AWS.replace("region", "#"): 'region: is needed for type = "aws"',
    AWS + 'parameters = { a = "b" }': "parameters: can't be signed with type",
    OAUTH2.replace('type = "oauth2"', ""): 'token_url: is for type = "oauth2" only',
    OAUTH2.replace("https://login", "http://login"): "token_url: http:// would send",
    OAUTH2 + 'authority = "none.pem"': "authority: ",
    OAUTH2 + 'authority = "env:PEM"': "authority: names a variable, but has to be the path",
}


@pytest.mark.parametrize(("text", "says"), WRONG.items())
def test_what_can_not_be_is_named_with_its_place(load, text, says):
    with pytest.raises(ConfigurationInvalid) as caught:
        load(text, CRM_SECRET="s")

    assert f"authorizations.crm.{says}" in str(caught.value)


def test_a_sandbox_run_gets_its_tokens_from_the_sandbox_with_no_secret(load):
    settings = sandboxed(load(OAUTH2, CRM_SECRET="real"), "http://127.0.0.1:8900")

    found = settings.authorizations["crm"]

    assert found.token_url.startswith("http://127.0.0.1:8900/")
    assert "real" not in repr(list(secrets_of(found))) + found.client_secret.reveal()
    assert found.revealed_headers() == {"Authorization": "Bearer {token}"}
