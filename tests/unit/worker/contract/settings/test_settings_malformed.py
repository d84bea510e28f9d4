"""A table of malformed configurations, each with all that is said about it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import ConfigurationInvalid

GOOD = """\
templates = "templates"
[redis]
url = "embedded"
[delivery]
identity = "email"
[authorizations.insider]
headers = { X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "env:TOKEN" }
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
authorization = "insider"
rate = "25000/min"
[destinations.other]
api = "http"
base_url = "https://hooks.example.com/in"
rate = "10/s"
[triggers.vip-enter]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
[triggers.vip-other]
destination = "other"
audiences = ["*"]
on = "change"
template = "other.jsonnet"
description = "env: is for secrets"
"""
PATHS = "(/api/user/v1/upsert, /api/user/v1/attribute/delete)"
ERASES = "/user/v1/delete erases whole profiles, irreversibly"
EXIT_GOES = f"{ERASES}; an exit goes to /api/user/v1/attribute/delete"
REGION = (
    "is not a country with phone numbers — write the two capital letters of its code, like"
    ' "US" or "GB"'
)
DURATION = 'write it as "10s", "15m" or "90d"'
RATE = 'write it as "25000/min", "400/s" or "1000/h"'
REDIS = (
    'write "embedded" or redis://, rediss://, redis+sentinel://, rediss+sentinel://,'
    " redis+cluster://, rediss+cluster://"
)
CELERYS = (
    "Celery needs a single Redis, or Sentinels; a small one will do, as nothing on it has to last"
)
CLEAR = "http:// would send profiles and credentials in the clear; only loopback may have it"

MISPLACED = "names a secret, which is not understood here"


AS_OF = 'write "name", "column:NAME", "file" or "now"'


def watch(*lines: str) -> str:
    """Return a watch, in front of the table [delivery]."""
    return "\n".join(("[backfill.watch.a]", 'source = "in/"', *lines, "[delivery]"))


@dataclass(frozen=True)
class Case:
    name: str
    old: str
    new: str
    says: tuple[str, ...]


def case(name: str, old: str, new: str, *says: str) -> Case:
    return Case(name, old, new, says)


def url(name: str, new: str, reason: str) -> Case:
    return case(name, '"/api/user/v1/upsert"', f'"{new}"', f"triggers.vip-enter.url: {reason}")


def at_insider(path: str) -> str:
    return (
        f"{path} is not one of the paths that may be written to at Insider {PATHS};"
        f" others are refused because {ERASES}"
    )


def base(name: str, new: str, reason: str) -> Case:
    return case(
        name, '"https://hooks.example.com/in"', f'"{new}"', f"destinations.other.base_url: {reason}"
    )


CASES = [
    # the file itself
    case("text without quotes", '"email"', "email",
         "not TOML: Invalid value (at line 5, column 12) — text stands in quotes"),
    case("a key twice", 'identity = "email"', 'identity = "email"\nidentity = "id"',
         "not TOML: Cannot overwrite a value (at line 6, column 16) — the key is there twice"),
    # keys
    case("an unknown table", "[delivery]", "[delivry]",
         "delivry: unknown key — did you mean 'delivery'?"),
    case("an unknown key", 'identity = "email"', 'identty = "email"',
         "delivery.identty: unknown key — did you mean 'identity'?"),
    case("an attribute's name for a key", 'identity = "email"', "lease_seconds = 10",
         "delivery.lease_seconds: unknown key — did you mean 'lease'?"),
    case("a name within the table", 'on = "enter"', 'on = "enter"\nname = "x"',
         "triggers.vip-enter.name: unknown key — the name stands in the table's header"),
    case("a name with a space", "[triggers.vip-enter]", '[triggers."vip enter"]',
         'triggers."vip enter": is not a name — names are made of a-z, 0-9 and -'),
    case("missing keys", 'api = "insider"\n', "",
         "destinations.insider.api: is missing"),
    # kinds of values
    case("a blank text", 'identity = "email"', 'identity = " "',
         "delivery.identity: must not be empty"),
    case("all audiences and one", '["vip"]', '["*", "vip"]',
         'triggers.vip-enter.audiences: "*" means all audiences and stands alone'),
    case("a direction with a slip", 'on = "enter"', 'on = "entr"',
         "triggers.vip-enter.on: must be 'enter', 'exit' or 'change' — did you mean 'enter'?"),
    case("a number that is hidden in answers", 'api = "http"',
         'api = "http"\nhttp = { suppressed = ["error 21610"] }',
         "destinations.other.http.suppressed[0]: numbers and quoted texts are hidden in an answer"
         " — name words of it"),
    case("a date among the settings", 'on = "enter"', 'on = "enter"\nsettings = { d = 2026-11-01 }',
         "triggers.vip-enter.settings: holds a date or time, which a template can't read"
         " — put it in quotes"),
    case("a number that JSON lacks", 'on = "enter"', 'on = "enter"\nsettings = { n = nan }',
         "triggers.vip-enter.settings: holds a number that JSON does not have"),
    case("an attribute without a name", 'on = "enter"',
         'on = "enter"\nsettings = { audience_attribute = "" }',
         "triggers.vip-enter.settings: audience_attribute must be the name of an attribute"),
    case("a country that goes by another code", 'identity = "email"', 'phone_region = "UK"',
         f"delivery.phone_region: {REGION}"),
    # durations and rates
    case("a lease too long", 'identity = "email"', 'lease = "1h"',
         "delivery.lease: 1h is not between 3s and 10m"),
    case("a rate by the day", '"25000/min"', '"25000/day"',
         f"destinations.insider.rate: '25000/day' is not a rate — {RATE}"),
    # Redis
    case("another database's URL", '"embedded"', '"http://127.0.0.1:6379"',
         f"redis.url: is not the URL of a Redis — {REDIS}"),
    case("a Redis from a variable that is not set", '"embedded"', '"env:NOWHERE"',
         "redis.url: env:NOWHERE: the environment variable NOWHERE is not set — set it, or add it"
         " to the .env beside the configuration"),
    case("a broker that is embedded too", 'url = "embedded"', 'broker_url = "embedded"',
         'redis.broker_url: can\'t be "embedded" — leave it empty to use redis.url'),
    case("a broker that is a Cluster", 'url = "embedded"', 'broker_url = "redis+cluster://a,b"',
         f"redis.broker_url: can't be a Cluster — {CELERYS}"),
    case("a Cluster without a broker", '"embedded"', '"redis+cluster://a,b"',
         "redis.broker_url: is missing: redis.url is a Cluster, which can't carry messages"
         f" — {CELERYS}"),
    # names that must exist
    case("a destination that is not there", 'destination = "insider"', 'destination = "insidr"',
         "triggers.vip-enter.destination: there is no [destinations.insidr]"
         " — did you mean 'insider'?"),
    case("an authorization that is not there", 'authorization = "insider"', 'authorization = "x"',
         "destinations.insider.authorization: there is no [authorizations.x] — there is insider"),
    case("a template that is not there", "insider/enter.jsonnet", "insider/entr.jsonnet",
         "triggers.vip-enter.template: there is no insider/entr.jsonnet in {folder}/templates"
         " — did you mean 'insider/enter.jsonnet'?"),
    case("a template outside", "insider/enter.jsonnet", "../secret.jsonnet",
         "triggers.vip-enter.template: lies outside the templates folder"
         " — name it as it lies below that folder"),
    case("a folder of templates that is not there", '"templates"', '"templats"',
         "templates: there is no folder {folder}/templats"
         " — relative paths start at the folder of this file"),
    case("a sample that is not there", 'on = "enter"', 'on = "enter"\nsample = "ann.json"',
         "triggers.vip-enter.sample: there is no file ann.json"
         " — relative paths start at the folder of this file"),
    case("a stream without Lytics", 'on = "enter"', 'on = "enter"\nresponse_stream = "answers"',
         "triggers.vip-enter.response_stream: needs the table [lytics]"),
    case("a sync without Lytics", "[delivery]",
         '[sync.vip]\naudience = "vip"\nevery = "15m"\n[delivery]',
         "sync.vip: needs the table [lytics]"),
    case("a watch that does not say when its rows are true", "[delivery]",
         watch('audience = "vip"'),
         f"backfill.watch.a.as_of: is missing — {AS_OF}"),
    case("a watch with one time for all files", "[delivery]",
         watch('audience = "vip"', 'as_of = "2026-11-25T06:00:00Z"'),
         f"backfill.watch.a.as_of: is no time of each new file — {AS_OF}"),
    case("a watch with a time and no audience", "[delivery]", watch('as_of = "name"'),
         "backfill.watch.a.as_of: needs an audience"),
    case("a watch for a trigger that is not there", "[delivery]", watch('triggers = ["vip"]'),
         "backfill.watch.a.triggers[0]: there is no [triggers.vip]"
         " — there is vip-enter, vip-other"),
    case("a watch of an audience at Lytics", "[delivery]",
         '[backfill.watch.a]\nsource = "lytics:vip"\n[delivery]',
         "backfill.watch.a.source: is no place of files"
         " — an audience at Lytics is followed by a [sync.NAME]"),
    # secrets and headers
    case("a secret where none is understood", 'identity = "email"', 'identity = "file:email"',
         f"delivery.identity: {MISPLACED}"),
    case("a secret that is a number", '"env:TOKEN"', "12345",
         "authorizations.insider.headers.X-REQUEST-TOKEN: must be text in quotes"
         " — env:NAME, file:PATH or the value itself"),
    case("a partner name with capitals", '"acme"', '"Acme"',
         "authorizations.insider.headers.X-PARTNER-NAME: literal holds an uppercase letter"
         " — Insider wants the partner name in lower case"),
    case("a secret that no header can carry", '"env:TOKEN"', '"a\\nb"',
         "authorizations.insider.headers.X-REQUEST-TOKEN: literal holds characters that a header"
         " can't carry"),
    case("a header that is ours", "X-REQUEST-TOKEN", "Content-Type",
         "authorizations.insider.headers.Content-Type: is set by segrelay itself"),
    case("an address without a port", "[delivery]",
         '[flower]\nlisten = "127.0.0.1"\npassword = "x"\n[delivery]',
         'flower.listen: is not an address to listen on — write it as "127.0.0.1:8080"'),
    case("a webhook without a secret", "[delivery]",
         '[producer.webhook]\nlisten = "127.0.0.1:8080"\n[delivery]',
         "producer.webhook.secret: is missing"),
    # URLs
    case("an Insider trigger without a URL", 'url = "/api/user/v1/upsert"\n', "",
         "triggers.vip-enter.url: is missing"
         " — write /api/user/v1/upsert or /api/user/v1/attribute/delete"),
    url("the path that erases", "/api/user/v1/delete", EXIT_GOES),
    url("another path of Insider", "/api/user/v2/upsert",
        at_insider("/api/user/v2/upsert") + " — did you mean '/api/user/v1/upsert'?"),
    url("another host", "https://insider.example.com/api/user/v1/upsert",
        "leads to another host than https://unification.useinsider.com"
        " — the authorization would go there too: make it a destination of its own"),
    case("the path that erases, by another API", 'template = "other.jsonnet"',
         'template = "other.jsonnet"\nurl = "//User/V1/delete/"',
         f"triggers.vip-other.url: {EXIT_GOES}"),
    base("http in the clear", "http://hooks.example.com", CLEAR),
    base("a base URL with a query", "https://hooks.example.com?a=1", "a base URL has no query"),
    # several at once
    case("three problems", 'identity = "email"\n[authorizations.insider]',
         'identity = 7\nlate = "x"\nnope = 1\n[authorizations.insider]',
         "delivery.identity: must be text in quotes",
         f"delivery.late: 'x' is not a duration — {DURATION}",
         "delivery.nope: unknown key — there is dead_letters_kept, description, identity,"
         " in_flight, ipv4_only, late, lease, ledger_retention, phone_region, request_deadline"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for template in ("insider/enter.jsonnet", "other.jsonnet"):
        file = tmp_path / "templates" / template
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    file = folder / "segrelay.toml"
    file.write_text(text)
    return file


def test_what_the_table_changes_is_right_before(folder):
    assert load_settings(written(folder, GOOD), environ={"TOKEN": "t"}).warnings == ()


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_every_problem_is_told_with_its_place_and_a_hint(one, folder):
    assert GOOD.count(one.old) >= 1
    file = written(folder, GOOD.replace(one.old, one.new, 1))

    with pytest.raises(ConfigurationInvalid) as raised:
        load_settings(file, environ={"TOKEN": "t"})

    expected = [f"segrelay.toml: {line}".replace("{folder}", str(folder)) for line in one.says]
    assert raised.value.message.splitlines() == expected


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigurationInvalid, match="`segrelay init DIR` writes one"):
        load_settings(tmp_path / "segrelay.toml", environ={})


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    with pytest.raises(ConfigurationInvalid, match="can't be read"):
        load_settings(tmp_path, environ={})


def test_a_file_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    file = tmp_path / "segrelay.toml"
    file.write_bytes(b'templates = "t"\n# caf\xe9\n')

    with pytest.raises(ConfigurationInvalid, match="line 2: is not UTF-8"):
        load_settings(file, environ={})
