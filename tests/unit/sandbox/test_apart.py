"""The sandbox imports nothing of the product; what both know is written twice and compared."""

from urllib.parse import urlsplit

import orjson

from segrelay.ops import sandbox as commands
from segrelay.ops.sandbox import endpoints_of
from segrelay.sandbox import __main__ as process
from segrelay.sandbox import settings as switches
from segrelay.worker import logs
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE, load_settings
from segrelay.worker.contract.settings.http import HttpRequests, Signature
from segrelay.worker.contract.settings.sandboxed import (
    DEFAULT_SANDBOX,
    ENDPOINTS_PATH,
    TOKEN_PATH,
)

SIGNED = """
templates = "."

[destinations.crm]
api = "http"
base_url = "https://crm.example.com"
rate = "100/min"
http.sign = { secret = "${CRM_SECRET}", encoding = "base64", timestamp_header = "X-Time" }

[triggers.enter]
destination = "crm"
audiences = ["vip"]
on = "enter"
template = "enter.jsonnet"
url = "/"
"""


def test_paths_ports_and_names_are_the_same_on_both_sides():
    assert switches.ENDPOINTS_PATH == ENDPOINTS_PATH
    assert switches.TOKEN_PATH == TOKEN_PATH
    assert switches.AUDIENCE_ATTRIBUTE == DEFAULT_AUDIENCE_ATTRIBUTE
    assert process.LOG_FORMAT_VARIABLE == logs.FORMAT_VARIABLE
    default = urlsplit(DEFAULT_SANDBOX)
    assert (default.hostname, default.port) == (process.LOOPBACK, process.DEFAULT_PORT)
    assert (default.hostname, default.port) == (commands.LOOPBACK, commands.DEFAULT_PORT)
    assert process.__spec__.parent == commands.MODULE


def test_a_signature_has_the_same_keys_and_defaults_on_both_sides():
    ours, theirs = dict(Signature.model_fields), dict(switches.SignatureRule.model_fields)
    # The secret of a sandbox run is a text, and the header of the id is that of all requests.
    ours.pop("secret_encoding")
    header = HttpRequests.model_fields["idempotency_header"]

    assert theirs.pop("id_header").default == header.default
    assert {n: one.default for n, one in ours.items()} == {
        n: one.default for n, one in theirs.items()
    }


def test_the_sandbox_understands_what_a_sandbox_run_demands_of_requests(tmp_path):
    path = tmp_path / "segrelay.toml"
    path.write_text(SIGNED)
    (tmp_path / "enter.jsonnet").write_text("{}")
    environ = {"SEGRELAY_CONFIG": str(path), "SEGRELAY_SANDBOX": "1", "CRM_SECRET": "real"}

    given = orjson.dumps({"endpoints": endpoints_of(load_settings(environ=environ))})

    assert b"real" not in given
    [sign] = process.settings_of(given.decode()).endpoints["crm"].sign
    assert sign.secret.get_secret_value() == "sandbox"
    assert (sign.encoding, sign.timestamp_header) == ("base64", "X-Time")
