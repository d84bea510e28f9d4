"""Secrets and personal data that were planted come out nowhere.

They are planted in the configuration, in payloads, in what templates say and in what the sandbox
answers; then everything fails in every way, and all that people and machines see is searched.
"""

import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import orjson
import pytest
from celery import Celery

from ops.metrics.page import MetricsPage
from ops.rig.rig import Rig, free_port
from tests.journeys.append_only_file import commands_of
from tests.journeys.endpoint import Endpoint
from tests.journeys.play import await_ready, status_of
from tests.waiting import until
from tests.warm import WarmProcess
from worker.contract import keys
from worker.contract.celery.options import broker_options

NAME = "Quetzalina"
EMAIL = "ann.planted@example.com"
PHONE = "+14155550123"
ORDERS = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"
PERSONAL = (NAME, "ann.planted", "4155550123", "owned\x07", "\x1b]0", "\x9b", "\u202e")
SECRETS = {
    "an API key": "planted-key-of-insider",
    "a parameter": "planted-parameter-of-a-url",
    "the receiver's secret": "planted-secret-of-the-receiver",
    "Flower's password": "planted-password-of-flower",
    "Lytics' token": "planted-token-of-lytics",
}
SAYS = f"{NAME} <{EMAIL}> {PHONE} {ORDERS}"
TEMPLATE = """
local event = import "lytemplates.libsonnet";
local fate = event.get("fate");
local said = "no plan for " + event.get("said");
assert fate != "assert" : said;
if fate == "error" then error said
else if fate == "field" then {}[event.get("said")]
else {
  users: [{
    identifiers: { email: event.get("email") },
    attributes: {
      custom: { lytics_computed_attr: [event.segSlug()], note: event.get("said"), fate: fate },
    },
  }],
}
"""
FATES = ("assert", "error", "field", "refused", "delivered")
MORE = """
[authorizations.other]
headers = {{ X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "{key}" }}
parameters = {{ apikey = "{parameter}" }}
[destinations.other]
api = "insider"
base_url = "SANDBOX"
authorization = "other"
rate = "600/min"
[triggers.other]
destination = "other"
audiences = ["other"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "{secret}"
max_bytes = 1_000_000
[flower]
listen = "127.0.0.1:{flower}"
user = "ops"
password = "{password}"
[lytics]
base_url = "SANDBOX"
token = "{token}"
[sync.vips]
audience = "vip"
every = "1s"
[operate.notify]
url = "{chat}/a-secret-hook"
after = "0s"
severity = "attention"
"""
LOOKING = (
    ("status",), ("status", "--json"), ("status", "--check", "--attention"),
    ("dlq", "causes"), ("dlq", "causes", "--json"),
    ("dlq", "list"), ("dlq", "list", "--json"), ("dlq", "replay", "--dry-run"),
    ("dlq", "replay", "--dry-run", "--json"), ("quarantine", "list"),
    ("quarantine", "list", "--json"), ("audience", "list"), ("audience", "list", "--json"),
    ("config", "show"), ("config", "show", "--json"), ("config", "check", "--live"),
    ("verify", "--older-than", "0s"), ("sync", "status"), ("sync", "status", "--json"),
    ("reconcile", "vip"), ("backfill", "status", "load"), ("backfill", "report", "load"),
    ("redis", "status"), ("serve", "--check"), ("audit",), ("audit", "--json"),
)  # fmt: skip
ACTING = (
    ("pause", "other", "--reason", "looked at"), ("resume", "other"), ("redis", "acknowledge"),
    ("discard", "--trigger", "other", "--yes"), ("sync", "confirm", "vips"),
    ("dlq", "replay", "--all", "--yes"), ("trigger", "move", "a", "b"),
    ("audience", "set", "a1", "vip"), ("destination", "rename", "a", "b"),
    ("dlq", "discard", "--profile", f"1.{EMAIL}", "--because", f"<{EMAIL}> {PHONE} {ORDERS}", "-y"),
)  # fmt: skip
AT_ONCE = 4


def payload(number: int, fate: str, audience: str = "vip", **more: object) -> bytes:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    entrance = {"slug": audience, "event": "enter", "enter": at}
    data = {
        "email": f"{number}.{EMAIL}",
        "first_name": NAME,
        "phone": PHONE,
        "said": SAYS,
        "fate": fate,
        "segment_events": [entrance],
    }
    return orjson.dumps({"data": data | more})


def planted() -> bytes:
    lines = [payload(number, fate) for number, fate in enumerate(FATES * 3)]
    lines += [
        payload(90, "delivered", audience=f"vip{ORDERS}"),
        payload(91, "delivered", audience="nobody-wants-it"),
        payload(92, "delivered", email=None),
        payload(93, "delivered", segment_events=[{"slug": "vip", "event": "enter", "enter": SAYS}]),
        payload(94, "delivered", segment_events=SAYS),
        payload(95, "delivered", audience="other"),
        payload(96, "delivered", audience="nobody-wants-it").replace(
            b'{"data"', orjson.dumps({"meta": {"who": SAYS}, "type": SAYS})[:-1] + b',"data"'
        ),
        f'{{"data": {SAYS}'.encode(),
    ]
    return b"\n".join(lines) + b"\n"


def launch(command, **options):
    """Start long-running commands as they start by themselves: their arguments can be seen."""
    is_long = {"worker", "serve", "flower"} & set(command)
    return (subprocess.Popen if is_long else WarmProcess)(command, **options)


class LeakyWorld:
    """A whole system with planted secrets, and all that was seen of it, by place."""

    def __init__(self, folder: Path, chat_url: str) -> None:
        self.port, self.flower = free_port(), free_port()
        more = MORE.format(
            key=SECRETS["an API key"],
            parameter=SECRETS["a parameter"],
            secret=SECRETS["the receiver's secret"],
            password=SECRETS["Flower's password"],
            token=SECRETS["Lytics' token"],
            port=self.port,
            flower=self.flower,
            chat=chat_url,
        )
        self.rig = Rig(
            folder,
            token=SECRETS["an API key"],
            templates={"insider/enter.jsonnet": TEMPLATE},
            redis_lines="partitions = 2",
            delivery_lines='lease = "2s"\nlate = "2s"\nrequest_deadline = "5s"',
            more=more,
            launch=launch,
        )
        self.seen: dict[str, bytes] = {}

    @property
    def secrets(self) -> list[str]:
        return [*SECRETS.values(), self.rig.client.connection_pool.connection_kwargs["password"]]

    def run(self, *command: str, given: bytes = b"") -> None:
        done = self.rig.command(*command, given=given)
        assert b"This should not have happened" not in done.stderr, (command, done.stderr)
        assert b"Traceback" not in done.stderr, (command, done.stderr)
        output = done.stdout + done.stderr
        if command[0] == "why":  # it says whom it was asked for
            output = output.replace(command[1].encode(), b"")
        self.seen[f"{' '.join(command)} #{len(self.seen)}"] = output

    def ask(self, address: str, **options: object) -> None:
        try:
            answer = httpx.request(options.pop("method", "GET"), address, timeout=120, **options)
        except httpx.TransportError as error:
            self.seen[f"{address} #{len(self.seen)}"] = str(error).encode()
        else:
            headers = str(answer.headers).encode()
            self.seen[f"{address} #{len(self.seen)}"] = headers + answer.content

    def post(self, content: bytes, secret: str = SECRETS["the receiver's secret"]) -> None:
        address = f"http://127.0.0.1:{self.port}/v1/lytics"
        headers = {"X-Segrelay-Secret": secret}
        self.ask(address, method="POST", content=content, headers=headers)

    def look_at_flower(self) -> None:
        login = ("ops", SECRETS["Flower's password"])
        base = f"http://127.0.0.1:{self.flower}"
        workers = httpx.get(f"{base}/api/workers?refresh=1", auth=login, timeout=120).json()
        tasks = list(httpx.get(f"{base}/api/tasks", auth=login).json())[:5]
        pages = ["/", "/workers", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers"]
        pages += ["/api/queues/length", "/api/task/types"]
        pages += [f"/worker/{name}" for name in workers] + [f"/task/{uuid}" for uuid in tasks]
        pages += [f"/api/task/info/{uuid}" for uuid in tasks]
        for page in pages:
            self.ask(base + page, auth=login)
        self.ask(f"{base}/tasks", auth=("ops", "wrong"))

    def look_at_processes(self) -> None:
        lines = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes()
                ours = str(self.rig.folder).encode() in (folder / "environ").read_bytes()
            except OSError:
                continue
            if ours or b"valkey" in line or str(self.rig.folder).encode() in line:
                lines.append(line)
        assert any(b"worker" in line for line in lines)
        self.seen["arguments of processes"] = b"\n".join(lines)

    def look_at_logs(self) -> None:
        for log in self.rig.folder.rglob("*.log"):
            self.seen[f"log {log.name}"] = log.read_bytes()
        assert {"log worker-0.log", "log serve.log", "log flower.log"} <= set(self.seen)


@pytest.fixture
def chat():
    """Takes the messages about problems."""
    with Endpoint(lambda _: (200, {})) as endpoint:
        yield endpoint


@pytest.fixture
def world(tmp_path: Path, chat):
    world = LeakyWorld(tmp_path, chat.url)
    with world.rig:
        yield world


@pytest.fixture
def celery_events(world):
    """All that Celery's workers tell of their tasks, as Flower would hear it."""
    told: list[object] = []
    app = Celery("test")
    app.conf.update(broker_options(world.rig.settings))
    over = threading.Event()
    thread = threading.Thread(target=_listen, args=(app, told, over), daemon=True)
    thread.start()
    yield told
    over.set()
    thread.join(5)


def _listen(app, told, over) -> None:
    """Listen until it is over, also to a Redis that is killed and comes back."""
    while not over.is_set():
        lost = app.connection_for_read().recoverable_connection_errors
        with suppress(*lost, TimeoutError), app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": told.append})
            while not over.is_set():
                receiver.capture(limit=None, timeout=1, wakeup=False)


def test_what_is_planted_comes_out_nowhere(world, celery_events, chat):
    rig = world.rig
    refuses = {"status": 400, "contains": '"refused"', "message": f"no: {SAYS}"}
    rig.sandbox.settings(failures=[refuses], accept_anything=True)
    rig.sandbox.post("lytics/profiles", [person(number) for number in range(20)])
    worker = rig.start_worker("--loglevel=DEBUG", "--concurrency=2")
    for command in ("serve", "flower"):
        rig.start_beside(command)
    world.run("send", "-", given=planted())
    world.run("send", "-", "--json", given=planted())
    await_ready(rig, worker)
    until(lambda: all_has_happened(rig), 60)

    fail_in_every_way(world)
    look_at_everything(world)
    until(lambda: chat.came, 60)
    # Commands that act are kept: those of `look_at_everything` as well.
    world.run("audit")
    world.run("audit", "--json")

    world.seen["messages"] = orjson.dumps([came.body for came, _ in chat.came])
    world.seen["metrics"] = MetricsPage(rig.client, rig.settings).text()
    world.seen["Celery"] = orjson.dumps(celery_events, default=str)
    written = commands_of(rig.settings.redis.data_dir)
    world.seen["Redis"] = b"\n".join(
        b" ".join(words) for words in written if not keys.is_personal(key_of(words))
    )
    assert len(celery_events) > 0
    assert any(keys.is_personal(key_of(words)) for words in written)
    assert any(b"no plan for" in text for text in world.seen.values())
    all_written = b"\n".join(b" ".join(words) for words in written)
    assert NAME.encode() in all_written
    told = {place: text for place, text in world.seen.items() if not place.startswith("try")}
    assert found_in(told, PERSONAL) == []
    assert all(b"a-secret-hook" not in text for text in world.seen.values())
    assert found_in(world.seen | {"all of Redis": all_written}, world.secrets) == []


def fail_in_every_way(world) -> None:
    """Let each part fail in each way that it knows, with people's data in what fails."""
    rig = world.rig
    url = f"http://127.0.0.1:{world.port}"
    until(lambda: answers(f"{url}/healthz"), 60)
    world.post(planted())
    world.post(planted(), secret="wrong-secret-of-somebody")
    world.post(b"\x1f\x8b" + SAYS.encode())
    world.post(b"[" + payload(1, "delivered") * 3_000)
    for path in ("/readyz", "/healthz", "/metrics", "/no-such-page"):
        world.ask(url + path)

    rows = rig.folder / "rows.ndjson"
    row = orjson.dumps({"email": f"7.{EMAIL}", "first_name": NAME})
    rows.write_bytes(b"\n".join([row, b'{"email": 5', row.replace(b"7.", b"8.")]))
    job = ("--audience", "vip", "--as-of", "now", "--name", "load")
    world.run("backfill", "plan", str(rows), *job[:4])
    world.run("backfill", "start", str(rows), *job)
    rows.write_bytes(SAYS.encode())
    world.run("backfill", "start", str(rows), *job[:4], "--name", "broken")

    for switches in (
        {"credentials_status": 401},
        {"credentials_status": 0, "error_shares": {"503": 0.5}, "lost_answers": 0.5},
        {"error_shares": {}, "lost_answers": 0.0, "malformed_shares": {"html": 1.0}},
    ):
        rig.sandbox.settings(**switches)
        world.run("send", "-", given=payload(200 + len(world.seen), "delivered"))
        time.sleep(1)
        world.run("status")
        world.run("resume", "--all")
    rig.sandbox.settings(malformed_shares={}, lytics={"error_shares": {"500": 1.0}})
    time.sleep(2)
    os.killpg(rig.workers[0].pid, 9)
    rig.kill_redis()
    world.post(payload(300, "delivered"))
    world.run("status", "--check")
    rig.start_redis()
    await_ready(rig, rig.start_worker("--loglevel=DEBUG", "--concurrency=2"))


def look_at_everything(world) -> None:
    """Let all commands speak, and look at pages, logs and arguments of processes."""
    rig = world.rig
    shows = []
    for command, listed in (("dlq", "letters"), ("quarantine", "records")):
        found = orjson.loads(rig.command(command, "list", "--json").stdout)
        ids = [one["id"] for one in (found if isinstance(found, list) else found[listed])][:12]
        assert ids
        shows += [(command, "show", one) for one in ids]
    people = [("why", f"{number}.{EMAIL}") for number in range(len(FATES))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda command: world.run(*command), [*LOOKING, *shows, *people]))
    for command in ACTING:
        world.run(*command)
    file = rig.folder / "one.json"
    file.write_bytes(payload(400, "delivered"))
    world.run("try", str(file), "--trigger", "other")
    world.look_at_flower()
    world.look_at_processes()
    world.look_at_logs()


def person(number: int) -> dict[str, object]:
    return {
        "_uid": f"u{number}", "email": f"s{number}.{EMAIL}", "name": NAME, "segments": ["vip"],
    }  # fmt: skip


def key_of(words: list[bytes]) -> bytes:
    """Return the key that a command writes."""
    return words[1] if len(words) > 1 else b""


def found_in(seen: dict[str, bytes], markers) -> list[tuple[str, str]]:
    """Return where a marker stands."""
    texts = ((place, text.decode(errors="replace")) for place, text in seen.items())
    return [(place, one) for place, text in texts for one in markers if one in text]


def answers(address: str) -> bool:
    try:
        return httpx.get(address).is_success
    except httpx.TransportError:
        return False


def all_has_happened(rig) -> bool:
    """Say whether each fate has come; a last refused event may wait for others to go through."""
    status = status_of(rig)
    reasons = {**status["skipped_by_reason"], **status["dead_by_reason"]}
    return bool(status["delivered"]) and {"asserted", "template_error", "refused"} <= set(reasons)
