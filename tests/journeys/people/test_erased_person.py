"""A person who is erased from a whole installation is found in no key of Redis and in no file."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import httpx
import orjson
import pytest

from segrelay.ops.demo.rig import wait_for_receiver
from segrelay.ops.embedded.lifecycle import free_port
from segrelay.ops.state.identity_changes import read_renamed_people
from tests.integration.ops.person.test_erased_person import dumps, everything
from tests.integration.ops.person.test_erased_person import needles as needles_of
from tests.journeys.play import REMEMBERS_ALL, SHORT, Rig, start_worker, status_of
from tests.waiting import until

OLD, NEW, PHONE, NAME = "ann.old@example.com", "ann.new@example.org", "+14155550177", "Quetzalina"
BESIDE, OTHERS = "bob@example.com", "+14155550188"
SECRET = "a-secret-of-the-receiver"
MORE = """
[triggers.waits]
destination = "insider"
audiences = ["newsletter"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
[triggers.dies]
destination = "insider"
audiences = ["cart-abandoners"]
on = "enter"
template = "dies.jsonnet"
url = "/api/user/v1/upsert"
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "{secret}"
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.file]
audience = "vip"
source = "file:members/*.ndjson"
every = "1h"
"""
TEMPLATE = """
local event = import "lytemplates.libsonnet";
assert event.get("email") != null;
if event.get("fate") == "dies" then error "no plan for " + event.get("email")
else { users: [{ identifiers: { email: event.get("email") }, attributes: { name: "x" } }] }
"""


class Installation:
    """A worker, a receiver, and what Lytics sends them of two people."""

    def __init__(self, folder, rig, port):
        self.folder, self.rig, self.port = folder, rig, port

    def post(self, *payloads):
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/v1/lytics",
            content=b"[" + b",".join(payloads) + b"]",
            headers={"X-Segrelay-Secret": SECRET},
            timeout=60,
        )
        assert answer.is_success, answer.text

    def run(self, *command):
        done = self.rig.command(*command)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def renamed(self):
        partitions = self.rig.partitions()
        return read_renamed_people(self.rig.client, partitions, ["insider"])["insider"].renamed


def payload(email, audience, minute=0, *, at="", **fields):
    at = at or f"2026-11-20T10:{minute:02}:00Z"
    entry = {"id": audience * 2, "slug": audience, "event": "enter", "enter": at}
    own = {"phone": PHONE, "_uid": "u1", "first_name": NAME} if email in (OLD, NEW) else {}
    if email == BESIDE:
        own = {"phone": OTHERS, "_uid": "u2", "first_name": "Bob"}
    data = {"email": email, **own, **fields, "segment_events": [entry]}
    return orjson.dumps({"data": data})


@pytest.fixture
def installation(tmp_path, monkeypatch):
    for name in ("tmp", "members"):
        (tmp_path / name).mkdir()
    short = Path(tempfile.mkdtemp())
    (short / "t").symlink_to(tmp_path / "tmp")  # names of sockets have a limit of 107 bytes
    monkeypatch.setenv("TMPDIR", str(short / "t"))
    members = [{"email": email, "_uid": uid} for email, uid in ((OLD, "u1"), (BESIDE, "u2"))]
    export = tmp_path / "members/a.ndjson"
    export.write_bytes(b"\n".join(map(orjson.dumps, members)) + b"\n")
    os.utime(export, times=(time.time() - 60,) * 2)  # or it might still be written
    port = free_port()
    rig = Rig(
        tmp_path,
        delivery_lines=f"{SHORT}\n{REMEMBERS_ALL}",
        destination_lines='stable = "_uid"',
        enter_lines='response_stream = "answers"',
        audiences=("vip",),
        templates={"dies.jsonnet": TEMPLATE},
        more=MORE.format(port=port, secret=SECRET),
        sandbox_settings={"accept_anything": True},
    )
    with rig:
        rig.client.config_set("rdbcompression", "no")  # or nobody could search the files
        start_worker(rig, "--loglevel=DEBUG")
        wait_for_receiver(port, rig.start_beside("serve"))
        yield Installation(tmp_path, rig, port)
    shutil.rmtree(short)


def fill(at):
    """Let everything be known of a person that can be known: delivered, waiting, dead, refused."""
    rig = at.rig
    at.run("pause", "waits", "--reason", "to see what waits")
    for minute, email in enumerate((OLD, BESIDE)):
        dies = payload(email, "cart-abandoners", minute, fate="dies")
        at.post(payload(email, "vip", minute), dies)
    until(lambda: status_of(rig)["dead"] == 2)
    until(lambda: any(rig.client.hlen(partition.members("file")) for partition in rig.partitions()))
    at.post(payload(NEW, "vip", 9), payload(BESIDE, "vip", 9))
    until(lambda: at.renamed() == 1)
    for email in (BESIDE, OLD, NEW, BESIDE):
        at.post(payload(email, "newsletter", 10), payload(email, "vip", at="no time"))
        at.post(payload(email, "newsletter", 11, about="what she says of herself " * 200))
    rows = at.folder / "rows.ndjson"
    rows.write_bytes(
        orjson.dumps({"email": NEW}) + b'\n{"email": "' + NEW.encode() + b'", broken\n'
    )
    options = ("--audience", "vip", "--as-of", "now", "--job", "load")
    started = rig.command("backfill", "start", str(rows), *options)
    assert b"could not be placed" in started.stderr, started.stderr
    until(lambda: status_of(rig)["waiting"] == 8)
    rows.unlink()
    for path in (at.folder / "members").iterdir():
        path.unlink()


def look(at):
    """Do what may leave files: exports, reports, checks of templates."""
    at.run("dlq", "export", str(at.folder / "letters.ndjson"))
    at.run("backfill", "report", "load", "--bad-rows", str(at.folder / "bad.ndjson"))
    at.run("backfill", "report", "load", "--html", str(at.folder / "page.html"))
    at.run("config", "check")
    check = ("template", "check", "dies.jsonnet")
    for command in (("verify", "--older-than", "0s"), ("why", NEW), check):
        at.rig.command(*command)


def needles():
    return [*needles_of(OLD, NEW), PHONE.removeprefix("+").encode(), NAME.encode()]


def files_with(at, looked_for):
    """Return the files of the installation in which any of this stands."""
    return sorted(
        path.relative_to(at.folder).as_posix()
        for path in at.folder.rglob("*")
        if path.is_file() and any(each in path.read_bytes() for each in looked_for)
    )


def keys_with(at, looked_for):
    texts = everything(at.rig.client) + dumps(at.rig.client)
    return [text[:200] for text in texts if any(each in text for each in looked_for)]


def test_nobody_finds_a_person_who_was_erased(installation):
    at = installation
    fill(at)
    look(at)
    found = files_with(at, needles())
    assert {"letters.ndjson", "bad.ndjson"} < set(found)
    assert any(name.endswith(".aof") for name in found)
    assert keys_with(at, needles())

    receipt = orjson.loads(at.run("erase", OLD, "--yes", "--json"))

    assert keys_with(at, needles()) == []
    assert receipt["files_rewritten"] is True
    exported = [at.folder / name for name in ("bad.ndjson", "letters.ndjson")]
    assert receipt["exported_files"] == list(map(str, exported))
    assert files_with(at, needles()) == ["bad.ndjson", "letters.ndjson"]
    counts = receipt["erased"]
    assert (counts["waiting"], counts["letters"], counts["quarantine"]) == (4, 1, 3)
    assert (counts["bad rows"], counts["stable ids"], counts["former identities"]) == (1, 1, 1)
    assert not any(word in str(receipt) for word in (OLD, NEW, PHONE, NAME))
    assert status_of(at.rig)["waiting"] == 4
    assert keys_with(at, [BESIDE.encode()])
    assert any(".rdb" in name for name in files_with(at, [BESIDE.encode()]))
