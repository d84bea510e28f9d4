"""A person who is erased from a whole installation is found in no key of Redis and in no file.

Where people's data is sealed, nobody is found there before either, without the key.
"""

import os
import re
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import httpx
import orjson
import pytest

from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis.claim import claim
from tests.configuration import lytics, table, trigger
from tests.integration.ops.person.test_erased_person import dumps, everything
from tests.integration.ops.person.test_erased_person import needles as needles_of
from tests.journeys.append_only_file import commands_of
from tests.journeys.canaries import found_in, marks_of
from tests.journeys.play import REMEMBERS_ALL, SHORT, Rig, run, start_worker, status_of
from tests.journeys.receiver import Receiver, answers
from tests.ports import own_port
from tests.rig import kill_group
from tests.sealed import KEY, is_sealed
from tests.waiting import until

pytestmark = pytest.mark.also_sealed(nightly=True)
WHO, PHONE, NAME = "ann.old@example.com", "+14155550177", "Quetzalina"
CITY = "Żółw-Planted"
BESIDE, OTHERS = "bob@example.com", "+14155550188"
ENTER = "insider/enter.jsonnet"
MORE = "".join(
    [
        trigger("waits", audiences=["newsletter"], template=ENTER),
        trigger("dies", audiences=["cart-abandoners"], template="dies.jsonnet"),
        lytics("SANDBOX"),
        table("sync.file", audience="vip", source="file:members/*.ndjson", every="1h"),
    ]
)
KINDS = {
    "deliveries": rb"s:",
    "dead letters": rb"dead_letters$",
    "people for verify": rb"who$",
    "responses": rb"responses$",
    "outcomes": rb"outcomes$",
    "members": rb"members:",
    "quarantine": rb"\{quarantine\}:",
    "ledgers": rb"l",
}
"""The keys that are about people, those of a partition by what stands behind its tag."""
TEMPLATE = """
local event = import "lytemplates.libsonnet";
assert event.get("email") != null;
if event.get("fate") == "dies" then error "no plan for " + event.get("email")
else { users: [{ identifiers: { email: event.get("email") }, attributes: { name: "x" } }] }
"""


class Installation:
    """A worker, a receiver, and what Lytics sends them of two people."""

    def __init__(self, rig, receiver, console, tap):
        self.folder, self.rig = rig.folder, rig
        self.receiver, self.console, self.tap = receiver, console, tap

    def post(self, *payloads):
        assert self.receiver.post(b"[" + b",".join(payloads) + b"]") == 200

    def run(self, *command):
        return run(self.rig, *command)


def payload(email, audience, minute=0, *, at="", **fields):
    at = at or f"2026-11-20T10:{minute:02}:00Z"
    entry = {"id": audience * 2, "slug": audience, "event": "enter", "enter": at}
    own = {"phone": PHONE, "_uid": "u1", "first_name": NAME, "city": CITY} if email == WHO else {}
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
    members = [{"email": email, "_uid": uid} for email, uid in ((WHO, "u1"), (BESIDE, "u2"))]
    export = tmp_path / "members/a.ndjson"
    export.write_bytes(b"\n".join(map(orjson.dumps, members)) + b"\n")
    os.utime(export, times=(time.time() - 60,) * 2)  # or it might still be written
    receiver, console = Receiver(), own_port()
    tables = [MORE, receiver.table(), table("console", listen=f"127.0.0.1:{console}")]
    rig = Rig(
        tmp_path,
        delivery_lines=f"{SHORT}\n{REMEMBERS_ALL}",
        enter_lines='response_stream = "answers"',
        audiences=("vip",),
        templates={"dies.jsonnet": TEMPLATE},
        more="".join([*tables, table("protection", key=KEY) if is_sealed() else ""]),
        sandbox_settings={"accept_anything": True},
    )
    with rig:
        rig.client.config_set("rdbcompression", "no")  # or nobody could search the files
        claim(rig.client, rig.settings)  # so that this process' digests are those of the others
        tap = rig.start_beside("tap", "--for", "9m", "--json")
        start_worker(rig, "--loglevel=DEBUG")
        receiver.start(rig)
        rig.start_beside("console")
        yield Installation(rig, receiver, console, tap)
    shutil.rmtree(short)


def fill(at):
    """Let everything be known of a person that can be known: delivered, waiting, dead, refused."""
    rig = at.rig
    at.run("pause", "waits", "--why", "to see what waits")
    for minute, email in enumerate((WHO, BESIDE)):
        dies = payload(email, "cart-abandoners", minute, fate="dies")
        at.post(payload(email, "vip", minute), dies)
    until(lambda: status_of(rig)["dead"] == 2)
    until(lambda: any(rig.client.hlen(partition.members("file")) for partition in rig.partitions()))
    for email in (BESIDE, WHO, WHO, BESIDE):
        at.post(payload(email, "newsletter", 10), payload(email, "vip", at="no time"))
        at.post(payload(email, "newsletter", 11, about="what she says of herself " * 200))
    rows = at.folder / "rows.ndjson"
    rows.write_bytes(
        orjson.dumps({"email": WHO}) + b'\n{"email": "' + WHO.encode() + b'", broken\n'
    )
    options = ("--audience", "vip", "--as-of", "now", "--job", "load")
    started = rig.command("backfill", "start", str(rows), *options)
    assert b"could not be placed" in started.stderr, started.stderr
    until(lambda: status_of(rig)["waiting"] == 8)
    until((at.folder / "tap.log").read_bytes)
    rows.unlink()
    for path in (at.folder / "members").iterdir():
        path.unlink()


def look(at):
    """Do what may leave files: exports, reports, checks of templates."""
    at.run("config", "check")
    check = ("template", "check", "dies.jsonnet")
    for command in (("verify", "--older-than", "0s"), ("why", WHO), check):
        at.rig.command(*command)
    page = f"http://127.0.0.1:{at.console}"
    until(lambda: answers(f"{page}/healthz"), 60)
    assert httpx.post(f"{page}/people", data={"who": WHO}, timeout=60).status_code < 500


def needles():
    return [*needles_of(WHO), PHONE.removeprefix("+").encode(), NAME.encode()]


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


def kind_of(words):
    """Return what a command of Redis' append-only file writes: one of `KINDS`, or the rest."""
    key = words[1] if len(words) > 1 else b""
    own = re.sub(rb"^\{[^{}:]+:\d+\}", b"", key)
    return next((kind for kind, begin in KINDS.items() if re.match(begin, own)), "the rest")


def what_names_somebody(at):
    """Return where people are found without the key: kinds of keys that were written, and files."""
    names = [WHO, BESIDE]
    marks = marks_of(
        [*names, PHONE.removeprefix("+"), OTHERS.removeprefix("+"), NAME, CITY],
        [*names, *(f"email:{name}" for name in names), PHONE, "u1", "u2", "_uid:u1", "_uid:u2"],
    )
    written = defaultdict(list)
    for words in commands_of(at.rig.settings.redis.data_dir):
        written[kind_of(words)] += words
    places = {kind: b"\n".join(words) for kind, words in written.items()}
    places["Redis"] = b"\n".join(everything(at.rig.client))
    for path in at.folder.rglob("*"):
        name = path.relative_to(at.folder).as_posix()
        if path.is_file():
            places[name] = path.read_bytes()
    found = {place: found_in(content, marks) for place, content in places.items()}
    return {place: what for place, what in found.items() if what}


def names_nobody(at):
    """Assert that Redis, its files and logs name nobody who reads them without the key."""
    assert what_names_somebody(at) == {}


def names_somebody(at):
    """Assert that where nothing is sealed, people are found in everything that can hold them."""
    found = what_names_somebody(at)
    assert set(KINDS) <= set(found)
    assert "Redis" in found
    assert any(name.endswith(".aof") for name in found)
    # Without protection a digest can be made from an address, and tap shows digests.
    assert [name for name in found if name.endswith(".log")] == ["tap.log"]


def test_nobody_finds_a_person_who_was_erased(installation):
    at = installation
    fill(at)
    look(at)
    (names_nobody if is_sealed() else names_somebody)(at)
    assert keys_with(at, needles())
    kill_group(at.tap)

    receipt = orjson.loads(at.run("erase", WHO, "--yes", "--json"))

    assert keys_with(at, needles()) == []
    assert receipt["files_rewritten"] is True
    assert files_with(at, needles()) == ["tap.log"]
    counts = receipt["erased"]
    assert (counts["waiting"], counts["letters"], counts["quarantine"]) == (4, 1, 2)
    assert not any(word in str(receipt) for word in (WHO, PHONE, NAME))
    assert status_of(at.rig)["waiting"] == 4
    beside = digest_of(f"email:{BESIDE}").hex().encode()
    assert keys_with(at, [beside])
    assert any(".rdb" in name for name in files_with(at, [beside]))
