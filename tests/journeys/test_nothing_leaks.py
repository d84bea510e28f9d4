"""Personal data and control characters that were planted come out nowhere.

They are planted in payloads, in what templates say and in what the sandbox answers. Then all that
people and machines read is searched: outputs of commands, logs, Celery's events, Redis' causes.
"""

import threading
import time
from pathlib import Path

import orjson
import pytest
from celery import Celery

from ops.metrics.page import MetricsPage
from ops.state.partitions import all_partitions
from tests.journeys.endpoint import Endpoint
from tests.journeys.play import Rig, start_worker, status_of
from tests.waiting import until
from worker.contract import keys
from worker.contract.celery.options import broker_options

NAME = "Quetzalina"
EMAIL = "ann.planted@example.com"
PHONE = "+14155550123"
ORDERS = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"
MARKERS = (NAME, "ann.planted", "4155550123", "owned\x07", "\x1b]0", "\x9b", "\u202e")
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
NOTIFY = """
[operate.notify]
url = "{}/a-secret-hook"
after = "0s"
severity = "attention"
"""
FATES = ("assert", "error", "field", "refused", "delivered")
PRINTING = (
    ("status",), ("status", "--json"), ("dlq", "causes"), ("dlq", "causes", "--json"),
    ("dlq", "list"), ("dlq", "list", "--json"), ("dlq", "replay", "--dry-run"),
    ("dlq", "replay", "--dry-run", "--json"), ("quarantine", "list"),
    ("quarantine", "list", "--json"), ("audience", "list"), ("audience", "list", "--json"),
    ("config", "show"), ("config", "check"), ("verify", "--older-than", "0s"),
    ("verify", "--older-than", "0s", "--json"),
)  # fmt: skip


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
        f'{{"data": {SAYS}'.encode(),
    ]
    return b"\n".join(lines) + b"\n"


@pytest.fixture
def chat():
    """Takes the messages about problems."""
    with Endpoint(lambda _: (200, {})) as endpoint:
        yield endpoint


@pytest.fixture
def rig(tmp_path: Path, chat):
    refuses = {"status": 400, "contains": '"refused"', "message": f"no: {SAYS}"}
    with Rig(
        tmp_path,
        sandbox_settings={"failures": [refuses], "accept_anything": True},
        templates={"insider/enter.jsonnet": TEMPLATE},
        redis_lines="partitions = 2",
        more=NOTIFY.format(chat.url),
    ) as rig:
        yield rig


@pytest.fixture
def celery_events(rig):
    """All that Celery's workers tell of their tasks, as Flower would hear it."""
    told: list[object] = []
    app = Celery("test")
    app.conf.update(broker_options(rig.settings))
    connection = app.connection()
    receiver = app.events.Receiver(connection, handlers={"*": told.append})
    thread = threading.Thread(target=lambda: _listen(receiver), daemon=True)
    thread.start()
    yield told
    receiver.should_stop = True
    thread.join(5)
    connection.release()


def _listen(receiver) -> None:
    for _ in receiver.itercapture(limit=None, timeout=None, wakeup=False):
        if receiver.should_stop:
            return


def test_planted_people_and_orders_come_out_nowhere(rig, celery_events, chat):
    seen: dict[str, bytes] = {}
    sent = rig.command("send", "-", given=planted())
    seen["send"] = sent.stdout + sent.stderr
    sent = rig.command("send", "-", "--json", given=planted())
    seen["send --json"] = sent.stdout + sent.stderr
    worker = start_worker(rig)
    until(lambda: all_has_happened(rig), 60)
    for command in PRINTING:
        done = rig.command(*command)
        assert b"This should not have happened" not in done.stderr, (command, done.stderr)
        seen[" ".join(command)] = done.stdout + done.stderr
    seen |= {f"dlq show {one}": shown(rig, "dlq", "show", one) for one in letters(rig)}
    for number in range(len(FATES)):
        # The person was named on the command line; nothing else of them may come out.
        seen[f"why {number}"] = shown(rig, "why", f"{number}.{EMAIL}")
    asked = ("--profile", f"1.{EMAIL}", "--because", f"<{EMAIL}> and {PHONE} asked for it")
    seen["dlq discard"] = shown(rig, "dlq", "discard", *asked, "--yes")
    until(lambda: rig.client.exists(keys.PROGRESS), 30)
    rig.command("send", "-", given=planted())
    until(lambda: any("dead_letters" in str(came.body) for came, _ in chat.came), 60)
    seen["messages"] = orjson.dumps([came.body for came, _ in chat.came])
    seen["audit"] = shown(rig, "audit") + shown(rig, "audit", "--json")
    seen["log"] = rig.worker_log(0).read_bytes()
    seen["Celery"] = orjson.dumps(celery_events, default=str)
    seen["Redis"] = beside_the_letters(rig)
    seen["metrics"] = MetricsPage(rig.client, rig.settings).text()
    worker.terminate()

    assert any(b"no plan for" in text for text in seen.values())
    assert b"discard" in seen["audit"]
    assert all(b"a-secret-hook" not in text for text in seen.values())
    found = [
        (place, marker)
        for place, text in seen.items()
        for marker in MARKERS
        if marker in plain(text)
    ]
    assert found == []


def all_has_happened(rig) -> bool:
    """Say whether each fate has come; a last refused event may wait for others to go through."""
    status = status_of(rig)
    reasons = {**status["skipped_by_reason"], **status["dead_by_reason"]}
    return bool(status["delivered"]) and {"asserted", "template_error", "refused"} <= set(reasons)


def letters(rig) -> list[str]:
    return [one["id"] for one in orjson.loads(rig.command("dlq", "list", "--json").stdout)]


def shown(rig, *command: str) -> bytes:
    done = rig.command(*command)
    return done.stdout + done.stderr


def plain(text: bytes) -> str:
    """Return a text as a terminal would get it."""
    return text.decode(errors="replace")


def beside_the_letters(rig) -> bytes:
    """Return what Redis holds beside payloads, letters, and the keys for `verify`."""
    client, parts = rig.client, []
    for place in all_partitions(client, rig.settings):
        parts += [
            client.hgetall(place.causes),
            client.xrange(place.history),
            client.hgetall(place.counts),
        ]
    parts += [client.hgetall(keys.PAUSED), client.zrange(keys.PROCESSES, 0, -1)]
    parts += [client.hgetall(keys.NOTICES), client.xrange(keys.ACTS)]
    return repr(parts).encode()
