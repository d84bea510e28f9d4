"""Secrets and personal data that were planted come out nowhere.

They are planted in the configuration, in payloads, in what templates say and in what the sandbox
answers; then everything fails in every way, and all that people and machines see is searched.
Whatever runs for long logs one JSON object a line meanwhile, or text where that is asked for.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from celery import Celery

from segrelay.ops.metrics.page import MetricsPage
from segrelay.worker.contract.celery import broker_options
from tests.configuration import table
from tests.journeys import canaries
from tests.journeys.append_only_file import commands_of
from tests.journeys.endpoint import Endpoint
from tests.journeys.play import await_ready, status_of
from tests.journeys.receiver import answers
from tests.journeys.running.leaky_world import (
    ACTING,
    AT_ONCE,
    CONTROLS,
    EMAIL,
    FATES,
    LOOKING,
    NAME,
    PERSONAL,
    SAYS,
    LeakyWorld,
    launch,
    payload,
    planted,
)
from tests.ledger_keys import is_personal
from tests.sealed import KEY
from tests.waiting import until
from tests.warm import WarmProcess

LOGGED = {
    "worker-0": b"drain.ended",
    "serve": b"webhook.answered",
    "flower": b"FLOWER_AUTH is ignored",
}
"""Logs, and what each of them says."""
PROTECTED = table("protection", key=KEY)


@pytest.fixture
def chat():
    """Takes the messages about problems."""
    with Endpoint(lambda _: (200, {})) as endpoint:
        yield endpoint


@pytest.fixture(
    params=[
        pytest.param(False, marks=pytest.mark.nightly, id="open"),
        pytest.param(True, id="sealed"),
    ]
)
def is_protected(request):
    """Whether people's data is sealed."""
    return request.param


@pytest.fixture
def world(tmp_path: Path, monkeypatch, chat, is_protected):
    monkeypatch.setenv("FLOWER_AUTH", ".*")  # which is to be ignored, with a word in the log
    world = LeakyWorld(tmp_path, chat.url, more=PROTECTED if is_protected else "")
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


def test_what_is_planted_comes_out_nowhere(world, celery_events, chat, is_protected):
    rig = world.rig
    log_options = () if is_protected else ("--log-format", "text")
    refuses = {"status": 400, "contains": '"refused"', "message": f"no: {SAYS}"}
    rig.sandbox.settings(failures=[refuses], accept_anything=True)
    rig.sandbox.post("lytics/profiles", [person(number) for number in range(20)])
    rig.launch = WarmProcess  # the worker after it is the one whose arguments are looked at
    worker = rig.start_worker("--loglevel=DEBUG", "--concurrency=2", *log_options)
    rig.launch = launch
    for command in ("serve", "flower"):
        rig.start_beside(command, *log_options)
    for options in ((), ("--json",)):
        rig.start_beside("tap", "--for", "5m", *options)
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
        b" ".join(words) for words in written if not is_personal(key_of(words))
    )
    assert len(celery_events) > 0
    for name, said in LOGGED.items():
        log = world.seen[f"log {name}.log"]
        assert said in log, name
        assert [line for line in log.splitlines() if is_json(line) != is_protected] == [], name
    assert any(is_personal(key_of(words)) for words in written)
    assert any(b"no plan for" in text for text in world.seen.values())
    assert b'"outcome":"dead"' in world.seen["log tap.log"]
    all_written = b"\n".join(b" ".join(words) for words in written)
    if is_protected:
        people = [f"{number}.{EMAIL}" for number in range(len(FATES))] + [f"s0.{EMAIL}"]
        names = [name for each in people for name in (each, f"email:{each}")]
        assert canaries.found_in(all_written, canaries.marks_of(PERSONAL, names)) == []
    else:
        assert NAME.encode() in all_written
    told = {
        partition: text for partition, text in world.seen.items() if not partition.startswith("try")
    }
    assert found_in(told, (*PERSONAL, *CONTROLS)) == []
    assert all(b"a-secret-hook" not in text for text in world.seen.values())
    assert found_in(world.seen | {"all of Redis": all_written}, world.secrets) == []


def is_json(line: bytes) -> bool:
    with suppress(orjson.JSONDecodeError):
        return isinstance(orjson.loads(line), dict)
    return False


def fail_in_every_way(world) -> None:
    """Let each part fail in each way that it knows, with people's data in what fails."""
    rig = world.rig
    url = f"http://127.0.0.1:{world.port}"
    until(lambda: answers(f"{url}/healthz"), 60)
    world.post(planted())
    world.post(planted(), secret="wrong-secret-of-somebody")
    world.post(b"\x1f\x8b" + SAYS.encode())
    world.post(b"[" + payload(1, "delivered") * 3_000)
    for path in ("/readyz", "/healthz", "/no-such-page"):
        world.ask(url + path)

    rows = rig.folder / "rows.ndjson"
    row = orjson.dumps({"email": f"7.{EMAIL}", "first_name": NAME})
    rows.write_bytes(b"\n".join([row, b'{"email": 5', row.replace(b"7.", b"8.")]))
    job = ("--audience", "vip", "--as-of", "now", "--job", "load")
    world.run("backfill", "plan", str(rows), *job[:4])
    world.run("backfill", "start", str(rows), *job)
    rows.write_bytes(SAYS.encode())
    world.run("backfill", "start", str(rows), *job[:4], "--job", "broken")

    page = {"status": 200, "html": True, "applied": True}
    for switches in (
        {"credentials_status": 401},
        {"credentials_status": 0, "error_shares": {"503": 0.5}, "lost_answers": 0.5},
        {"error_shares": {}, "lost_answers": 0.0, "failures": [page]},
    ):
        rig.sandbox.settings(**switches)
        world.run("send", "-", given=payload(200 + len(world.seen), "delivered"))
        time.sleep(1)
        world.run("status")
        world.run("resume", "--all")
    rig.sandbox.settings(failures=[], lytics={"error_shares": {"500": 1.0}})
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
    texts = ((partition, text.decode(errors="replace")) for partition, text in seen.items())
    return [(partition, one) for partition, text in texts for one in markers if one in text]


def all_has_happened(rig) -> bool:
    """Say whether each fate has come; a last refused event may wait for others to go through."""
    status = status_of(rig)
    reasons = {**status["skipped_by_reason"], **status["dead_by_reason"]}
    return bool(status["delivered"]) and {"asserted", "template_error", "refused"} <= set(reasons)
