"""A world in which personal data and secrets are planted everywhere."""

import subprocess
import time
from pathlib import Path

import httpx
import orjson

from tests.configuration import insider, table, trigger
from tests.journeys.receiver import answers
from tests.ports import own_port
from tests.rig import Rig
from tests.waiting import until
from tests.warm import WarmProcess

ENTER = "insider/enter.jsonnet"
NAME = "Quetzalina"
EMAIL = "ann.planted@example.com"
PHONE = "+14155550123"
ORDERS = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"
PERSONAL = (NAME, "ann.planted", "4155550123")
CONTROLS = ("owned\x07", "\x1b]0;", "\x9b2J", "J\u202e")
"""Parts of the orders, each so long that digests and packed numbers never have it by chance."""
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
LOOKING = (
    ("status",), ("status", "--json"), ("status", "--check", "--attention"),
    ("dlq", "causes"), ("dlq", "causes", "--json"),
    ("dlq", "list"), ("dlq", "list", "--json"), ("dlq", "replay", "--dry-run"),
    ("dlq", "replay", "--dry-run", "--json"), ("quarantine", "list"),
    ("quarantine", "list", "--json"), ("audience", "list"), ("audience", "list", "--json"),
    ("config", "show"), ("config", "show", "--json"), ("config", "check", "--live"),
    ("verify", "--older-than", "0s"), ("sync", "status"), ("sync", "status", "--json"),
    ("sync", "run", "vips", "--dry-run"),
    ("backfill", "status", "load"),
    ("redis", "status"), ("serve", "--check"), ("audit",), ("audit", "--json"),
)  # fmt: skip
ACTING = (
    ("pause", "other", "--why", "looked at"), ("resume", "other"), ("redis", "acknowledge"),
    ("discard", "--trigger", "other", "--yes"), ("sync", "confirm", "vips"),
    ("dlq", "replay", "--all", "--yes"),
    ("audience", "set", "a1", "vip"), ("rename", "destination", "a", "b"),
    ("dlq", "discard", "--text", f"1.{EMAIL}", "--why", f"<{EMAIL}> {PHONE} {ORDERS}", "-y"),
)  # fmt: skip
AT_ONCE = 4


def planted_tables(receiver: str, flower: str, chat: str) -> str:
    """Return tables of the configuration that hold secrets, for these addresses."""
    key, parameter, secret, password, token = SECRETS.values()
    headers = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": key}
    hook = {"url": f"{chat}/a-secret-hook", "after": "0s", "severity": "attention"}
    return "".join(
        [
            table("authorizations.other", headers=headers, parameters={"apikey": parameter}),
            insider("other", base_url="SANDBOX", authorization="other", rate="600/min"),
            trigger("other", destination="other", audiences=["other"], template=ENTER),
            table("producer.webhook", listen=receiver, secret=secret, max_bytes=1_000_000),
            table("flower", listen=flower, user="ops", password=password),
            table("lytics", base_url="SANDBOX", token=token),
            table("sync.vips", audience="vip", every="1s"),
            table("operate.notify", **hook),
        ]
    )


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
    is_long = {"worker", "serve", "flower"} & set(command) and "--check" not in command
    return (subprocess.Popen if is_long else WarmProcess)(command, **options)


class LeakyWorld:
    """A whole system with planted secrets, and all that was seen of it, by place."""

    def __init__(self, folder: Path, chat_url: str, *, more: str = "") -> None:
        self.port, self.flower = own_port(), own_port()
        ports = [f"127.0.0.1:{port}" for port in (self.port, self.flower)]
        more += planted_tables(*ports, chat_url)
        self.rig = Rig(
            folder,
            token=SECRETS["an API key"],
            templates={ENTER: TEMPLATE},
            redis_lines="partitions = 2",
            delivery_lines='lease = "3s"\nlate = "2s"\nrequest_deadline = "5s"',
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
        until(lambda: answers(f"{base}/healthcheck"), 60)
        workers = httpx.get(f"{base}/api/workers?refresh=1", auth=login, timeout=120).json()
        tasks = list(httpx.get(f"{base}/api/tasks", auth=login, timeout=120).json())[:5]
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
