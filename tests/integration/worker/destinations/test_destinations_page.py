"""Each configuration of `docs/destinations.md`, sent by a drain to a strict stand-in."""

import re
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import orjson
import pytest

from segrelay.ops.dead_letters.reading import read_causes
from segrelay.ops.status.command import read_status
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.wakeups import SilentWaker
from segrelay.templates import SHIPPED_FOLDER
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from tests.integration.ops.relay import started
from tests.integration.worker.destinations.stand_ins import (
    NAMES,
    PEOPLE,
    REFUSED,
    STAND_INS,
    TOKENS,
    secret,
)
from tests.journeys.endpoint import Endpoint
from tests.waiting import allowed

PAGE = (Path(__file__).parents[4] / "docs/destinations.md").read_text()
TABLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
TEMPLATES = re.findall(r"```jsonnet\n// templates/(\S+)\n(.*?)```", PAGE, re.DOTALL)
NOW = (datetime.now(UTC) - timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
SECONDS = 20
HEAD = """
[redis]
url = "{redis}"
partitions = 1
[delivery]
late = "1s"
[lytics]
token = "a-token-of-nobody"
"""


@dataclass
class Server:
    """What all stand-ins were asked, and what went wrong.

    Each answers its first request that there are too many, and gives no answer to the next one of
    which it takes something.
    """

    wrong: list[str] = field(default_factory=list)
    taken: dict[str, list[str]] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    def respond(self, came):
        _, name, rest = came.path.split("/", 2)
        try:
            return self._answer(name, came, f"/{rest}")
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            self.wrong.append(f"{name}: {came.method} {came.path}: {error!r}")
            return 418, {}

    def _answer(self, name, came, rest):
        if rest == "/token":
            TOKENS[name](came)
            self.tokens[name] = self.tokens.get(name, 0) + 1
            return 200, {"access_token": f"a-token-of-{name}", "expires_in": 1_000}
        stand_in = STAND_INS[name]
        people = stand_in.people(came, urlsplit(rest).path)
        if name not in self.taken:
            self.taken[name] = []
            return 429, {"message": "too many requests"}
        status, answer = stand_in.answer(people)
        if (status, answer) == stand_in.refusal:
            return status, answer
        here = [who for who in people if who != REFUSED]
        self.taken[name] += here
        if here and name not in self.lost:
            self.lost[name] = here
            return 0, None
        return status, answer


def local(name, url):
    """Return a destination's tables as the page has them, leading to its stand-in."""
    [text] = [one for one in TABLES if f"[destinations.{name}]" in one]
    text = re.sub(r'base_url = "https://[^/"]+', f'base_url = "{url}/{name}', text)
    text = re.sub(r'token_url = "[^"]*"', f'token_url = "{url}/{name}/token"', text)
    text = re.sub(r'rate = "[^"]*"', 'rate = "60000/min"', text)
    networks = 'networks = ["127.0.0.0/8"]\nwords = ["plan"]\n'
    header = f"[destinations.{name}.http]\n"
    if header in text:
        return text.replace(header, header + networks)
    [at, *_] = re.finditer(rf"^\[(destinations\.{name}\.http|triggers)\.", text, re.MULTILINE)
    return f"{text[: at.start()]}{header}{networks}\n{text[at.start() :]}"


def payload(name, who, direction="enter"):
    entry = {"id": "vip" * 3, "slug": "vip", "event": direction, direction: NOW}
    fields = {"email": who, "first_name": name, "last_name": "Otto", "segment_events": [entry]}
    return orjson.dumps({"data": fields, "meta": {}, "id": "1"})


def configured(folder, url, redis, names=STAND_INS):
    """Return settings with configurations of the page, leading to a server."""
    (folder / "templates").mkdir()
    for path, text in TEMPLATES:
        (folder / "templates" / path).write_text(text)
    for path in SHIPPED_FOLDER.rglob("*.jsonnet"):
        target = folder / "templates" / path.relative_to(SHIPPED_FOLDER)
        target.parent.mkdir(exist_ok=True)
        target.write_text(path.read_text())
    tables = "".join(local(name, url) for name in names)
    environ = {name: secret(name) for name in re.findall(r'"env:([A-Z_]+)"', tables)}
    environ["SLACK_URL"] = f"{url}/slack/services/T00/B00/secret"
    source = folder / "segrelay.toml"
    source.write_text(HEAD.format(redis=redis) + tables)
    return load_settings(source, environ=environ)


def publish(client, settings, *people):
    Publisher(client, settings, waker=SilentWaker()).publish(people, PublishOptions())


@pytest.fixture(scope="module")
def sent(tmp_path_factory, valkey):
    """All configurations of the page, after a drain of each has sent six people."""
    server = Server()
    with Endpoint(server.respond) as endpoint, closing(connect(valkey.url)) as client:
        client.flushall()
        settings = configured(tmp_path_factory.mktemp("page"), endpoint.url, valkey.url)
        publish(client, settings, *map(payload, NAMES, PEOPLE))
        with closing(started(settings)) as runtime:
            # What is left then is told by the test of its own API.
            ends_at = time.monotonic() + allowed(SECONDS)
            while not drained(client, runtime) and time.monotonic() < ends_at:
                time.sleep(0.05)
        told = {
            name: [one.message for one in read_causes(client, [PartitionKeys(name, 0)])]
            for name in STAND_INS
        }
        yield server, read_status(client, settings), told


def drained(client, runtime):
    """Drain what waits, and say whether nothing does."""
    waiting = [name for name in STAND_INS if client.scard(PartitionKeys(name, 0).streams)]
    for name in waiting:
        runtime.drain(name, 0, Stop())
    return not waiting


@pytest.mark.parametrize("name", STAND_INS)
def test_a_configuration_of_the_page_delivers_to_its_api(sent, name):
    server, status, told = sent
    trigger = next(each for each in status["triggers"] if re.fullmatch(rf"{name}-\w+", each))
    found = status["triggers"][trigger]

    assert not [one for one in server.wrong if one.startswith(f"{name}:")]
    assert name in server.taken, (found, told[name], status["destinations"][name])
    # Whoever was in the request without an answer came twice, and nobody else.
    others = [who for who in PEOPLE if who != REFUSED]
    assert Counter(server.taken[name]) == Counter(others + server.lost[name])
    assert found["resent"] >= len(server.lost[name]) > 0
    assert (found["delivered"], found["dead"], found["waiting"]) == (len(PEOPLE) - 1, 1, 0)
    assert status["destinations"][name]["state"] in {"ok", "slowed"}
    assert server.tokens.get(name, 0) == (name in TOKENS)
    [message] = told[name]
    assert STAND_INS[name].said in message


LEAVING = ("braze", "members")


def test_who_leaves_is_taken_out_as_the_page_says(tmp_path, redis_url):
    came = []

    def respond(request):
        came.append((request.method, request.path, request.raw and request.body))
        return 404 if request.method == "DELETE" else 201, {}

    with Endpoint(respond) as endpoint, closing(connect(redis_url)) as client:
        settings = configured(tmp_path, endpoint.url, redis_url, LEAVING)
        publish(client, settings, payload("Ada", PEOPLE[0], "exit"))
        with closing(started(settings)) as runtime:
            for name in LEAVING:
                runtime.drain(name, 0, Stop())
        triggers = read_status(client, settings)["triggers"]

    assert [triggers[f"{name}-exit"]["delivered"] for name in LEAVING] == [1, 1]
    (_, _, body), deleted = came
    assert {"remove": ["vip"]} in body["attributes"][0].values()
    assert deleted == ("DELETE", f"/members/lists/7/members/{quote(PEOPLE[0], safe='')}", b"")
