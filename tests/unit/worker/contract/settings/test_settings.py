import pickle
import tomllib
from pathlib import Path

import pytest

from segrelay.worker.contract.settings import (
    load_settings,
)
from segrelay.worker.contract.settings.http import Failures, HttpDestination
from segrelay.worker.errors import ConfigurationInvalid
from tests.configuration import trigger

ROOT = Path(__file__).parents[5]
TEXT = """\
[redis]
url = "redis://ann:hunter2@127.0.0.1:6379/0"
[delivery]
late = "1m30s"
[authorizations.insider]
headers = { X-PARTNER-NAME = "env:PARTNER", X-REQUEST-TOKEN = "file:token" }
parameters = { key = "literal-hunter2" }
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com/"
authorization = "insider"
rate = "400/s"
[triggers.vip-enter]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "enter.jsonnet"
url = "/api/user/v1/upsert"
settings = { color = "red" }
[producer.webhook]
listen = "[::1]:8080"
secret = ["env:NEW", "env:OLD"]
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "enter.jsonnet").write_text("{}")
    (tmp_path / "token").write_text("token-hunter2\n")
    (tmp_path / "segrelay.toml").write_text(TEXT)
    return tmp_path / "segrelay.toml"


WINDOWS = b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("content", [TEXT.encode(), WINDOWS], ids=["plain", "of Windows"])
def test_values_are_read_as_a_person_writes_them_and_others_have_their_default(file, content):
    file.write_bytes(content)

    settings = load_settings(file, environ={})

    assert settings.delivery.late_seconds == 90
    assert settings.destinations["insider"].rate_per_minute == 24_000
    assert settings.redis.data_dir == file.parent / ".segrelay"
    assert settings.templates_folder == file.parent / "templates"
    assert settings.producer.webhook.host == "::1"
    assert settings.producer.webhook.port == 8080
    assert settings.redis.partitions == 16
    assert settings.delivery.ledger_retention_seconds == 90 * 86_400
    assert settings.flower is None
    assert settings.lytics is None
    trigger = settings.triggers["vip-enter"]
    assert trigger.settings == {"audience_attribute": "lytics_computed_attr", "color": "red"}
    assert settings.url_of(trigger) == "https://unification.useinsider.com/api/user/v1/upsert"
    assert settings.authorization_of(settings.destinations["insider"]).name == "insider"


UNSET = "authorizations.insider.headers.X-PARTNER-NAME: env:PARTNER is not set;"
NO_AUTHORIZATION = "destinations.insider: has no authorization;"
TOO_FAST = "is more than the 25,000 requests a minute that Insider takes"
SHORT = "has fewer than 16 characters and can be guessed — openssl rand -hex 24"
TWIN = "triggers.twin: sends what vip-enter sends too: each enter of"
TWICE = "goes twice — take the audience out of one of them"


def twin(**changed):
    """A trigger that sends what `vip-enter` sends."""
    same = {"template": "enter.jsonnet", "settings": {"color": "red"}}
    return trigger("twin", **same | changed)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (TEXT, f"{UNSET} nothing can be sent with it"),
        (TEXT.partition("[triggers")[0], "destinations.insider: no trigger uses it"),
        (
            TEXT.replace('authorization = "insider"\n', ""),
            f"{NO_AUTHORIZATION} Insider will refuse every request",
        ),
        (
            TEXT.replace('"400/s"', '"26000/min"'),
            f"destinations.insider.rate: {TOO_FAST}; it will refuse the others with 429",
        ),
        (TEXT + twin(), f"{TWIN} 'vip' {TWICE}"),
        (TEXT + twin(audiences=["*"]), f"{TWIN} 'vip' {TWICE}"),
        (TEXT.replace('["vip"]', '["*"]') + twin(audiences=["*"]), f"{TWIN} all audiences {TWICE}"),
        (TEXT, f"redis.url: the password {SHORT}"),
        (TEXT, f"producer.webhook.secret: the secret {SHORT}"),
        (TEXT, "producer.webhook.secret: the secret is a placeholder — fill in the real one"),
    ],
)
def test_what_can_not_work_yet_is_a_warning_with_its_place(file, text, warning):
    file.write_text(text)

    told = load_settings(file, environ={"NEW": "s3cr3t", "OLD": "changeme"}).warnings

    assert f"segrelay.toml: {warning}" in told


@pytest.mark.parametrize(
    "changed",
    [
        {"audiences": ["other"]},
        {"on": "exit"},
        {"url": "/api/user/v1/attribute/delete"},
        {"settings": {"color": "blue"}},
    ],
)
def test_triggers_that_send_something_else_are_no_twins(file, changed):
    file.write_text(TEXT + twin(**changed))

    assert not any(TWICE in warning for warning in load_settings(file, environ={}).warnings)


@pytest.mark.parametrize(
    "value", ["PUT-YOURS-HERE", "Bearer change-me", "<token>", "your token here", "xxx", "..."]
)
def test_a_placeholder_is_named_wherever_it_stands(file, value):
    (file.parent / "token").write_text(value)

    [told] = [one for one in load_settings(file, environ={}).warnings if "placeholder" in one]

    assert told.startswith("segrelay.toml: authorizations.insider.headers.X-REQUEST-TOKEN: ")


def test_a_secret_with_brackets_within_is_no_placeholder(file):
    (file.parent / "token").write_text("aX<9q>Zk81lkjhsfd98724")

    assert not [one for one in load_settings(file, environ={}).warnings if "placeholder" in one]


def test_a_secret_that_is_not_set_stops_only_what_sends_with_it(file):
    settings = load_settings(file, environ={})
    headers = settings.authorizations["insider"].headers

    assert headers["X-REQUEST-TOKEN"].reveal() == "token-hunter2"
    assert not headers["X-PARTNER-NAME"].is_set
    with pytest.raises(ConfigurationInvalid, match="environment variable PARTNER is not set"):
        headers["X-PARTNER-NAME"].reveal()


def test_nothing_that_is_printed_holds_a_secret(file):
    settings = load_settings(file, environ={"PARTNER": "hunter2", "NEW": "hunter2"})

    assert "hunter2" not in repr(settings) + str(settings)
    assert "hunter2" not in settings.model_dump_json(by_alias=True)
    assert "hunter2" not in str(settings.authorizations["insider"].headers["X-PARTNER-NAME"])


def test_no_message_holds_a_secret(file):
    file.write_text(TEXT.replace('"env:PARTNER"', '"Hunter2"') + '[delivery2]\nx = "hunter2"\n')

    with pytest.raises(ConfigurationInvalid) as raised:
        load_settings(file, environ={"SEGRELAY_REDIS_URL": "mysql://hunter2@127.0.0.1"})

    assert "hunter2" not in raised.value.message.lower()
    assert "SEGRELAY_REDIS_URL: is not the URL of a Redis" in raised.value.message


def test_the_environment_wins_over_the_env_file_and_both_over_the_file(file):
    (file.parent / ".env").write_text("PARTNER='acme$1'\nSEGRELAY_REDIS_URL=redis://127.0.0.1:1\n")

    settings = load_settings(file, environ={"SEGRELAY_REDIS_URL": "redis://127.0.0.1:2"})

    assert settings.redis.url == "redis://127.0.0.1:2"
    assert settings.authorizations["insider"].headers["X-PARTNER-NAME"].reveal() == "acme$1"


def test_an_empty_variable_is_not_set(file):
    settings = load_settings(file, environ={"PARTNER": "", "SEGRELAY_BROKER_URL": ""})

    assert not settings.authorizations["insider"].headers["X-PARTNER-NAME"].is_set
    assert settings.redis.broker_url == ""


def test_the_fingerprint_follows_the_files_content(file):
    before = load_settings(file, environ={}).fingerprint
    again = load_settings(file, environ={"PARTNER": "acme"}).fingerprint
    file.write_text(TEXT + "# changed\n")

    assert before == again
    assert len(before) == 12
    assert load_settings(file, environ={}).fingerprint != before


def test_settings_survive_pickling_and_are_frozen(file):
    settings = load_settings(file, environ={})

    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own
    with pytest.raises(ValueError, match="frozen"):
        settings.redis.partitions = 3


def test_what_is_shown_can_be_written_into_a_file_again(file):
    shown = load_settings(file, environ={}).model_dump(mode="json", by_alias=True)

    assert shown["delivery"]["late"] == "90s"
    assert shown["destinations"]["insider"]["rate"] == "24000/min"
    assert shown["redis"]["url"] == "redis://***@127.0.0.1:6379/0"
    assert shown["authorizations"]["insider"]["headers"]["X-PARTNER-NAME"] == "unset"
    assert shown["producer"]["webhook"]["secret"] == ["unset", "unset"]


def test_the_example_and_what_init_writes_are_one():
    scaffold = ROOT / "ops/config/scaffold"

    assert (ROOT / "segrelay.toml").read_text() == (scaffold / "segrelay.toml").read_text()
    assert (ROOT / ".env.example").read_text() == (scaffold / "env.example").read_text()


def test_the_example_is_right_also_with_all_that_is_commented_out(tmp_path):
    templates = tmp_path / "templates" / "insider"
    templates.mkdir(parents=True)
    for name in ("enter", "exit", "exit-event"):
        (templates / f"{name}.jsonnet").write_text("{}")
    (tmp_path / "templates" / "http").mkdir()
    (tmp_path / "templates" / "http" / "event.jsonnet").write_text("{}")
    example = (ROOT / "segrelay.toml").read_text()
    file = tmp_path / "segrelay.toml"

    file.write_text(example)
    plain = load_settings(file, environ={})
    file.write_text(uncommented(example))
    whole = load_settings(file, environ={})

    assert whole.redis == plain.redis
    assert whole.delivery == plain.delivery
    assert whole.destinations["insider"] == plain.destinations["insider"]
    crm = whole.destinations["crm"].http
    assert crm == HttpDestination(failures=Failures(at="errors"))
    assert whole.flower is not None
    assert whole.sync["vip"].every_seconds == 900
    assert whole.backfill.watch["vip"].as_of == "name"


def uncommented(example: str) -> str:
    lines = [
        line.removeprefix("# ") if is_toml(line.removeprefix("# ")) else line
        for line in example.splitlines()
        if not line.startswith(("# sample", "# skip_hook"))
    ]
    return "\n".join(lines)


def is_toml(line: str) -> bool:
    try:
        return bool(tomllib.loads(line))
    except tomllib.TOMLDecodeError:
        return False
