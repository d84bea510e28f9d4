"""People's data is sealed while deliveries wait: with another key, nobody begins."""

import orjson

from tests.journeys.append_only_file import commands_of
from tests.journeys.play import (
    SHORT,
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    send,
    start_worker,
    status_of,
)

KEY, WRONG = f"{'A' * 43}=", f"{'B' * 42}A="


def configure(rig, key):
    """Write another key into the configuration; "" = no table of it."""
    path = rig.folder / "segrelay.toml"
    text = path.read_text().partition("[protection]")[0]
    path.write_text(text + (f'[protection]\nkey = "{key}"\n' if key else ""))


def run(rig, *words):
    done = rig.command(*words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return orjson.loads(done.stdout) if "--json" in words else done.stdout


def test_with_another_key_nobody_begins_and_nobody_is_found(tmp_path):
    happened, sent = invent(200, 40, seed=9)
    with Rig(tmp_path, delivery_lines=SHORT, more=f'[protection]\nkey = "{KEY}"\n') as rig:
        start_worker(rig)
        send(rig, lines(sent[:100]))
        rig.wait_until_empty(60)
        run(rig, "pause", "enter", "--reason", "some wait while the key is another one")
        send(rig, lines(sent[100:]))
        rig.kill_workers()

        refused(rig)
        start_worker(rig)
        run(rig, "resume", "enter")
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        emails = [email.encode() for email in {one["data"]["email"] for one in payloads(sent)}]
        written = b"\n".join(b" ".join(words) for words in commands_of(rig.settings.redis.data_dir))
        assert b"{segrelay}:protection" in written
        assert not [email for email in emails if email in written]


def refused(rig):
    """Nobody without the right key begins, and what waits goes on waiting."""
    for key, says in ((WRONG, b"is protected with the key"), ("", b"Set [protection] key")):
        configure(rig, key)
        for command in (("status",), ("worker",), ("send", "-"), ("why", "a@example.com")):
            done = rig.command(*command)
            assert done.returncode == 2, (command, done.stdout)
            assert says in done.stderr, (command, done.stderr)
            assert b"Traceback" not in done.stderr
    configure(rig, KEY)
    assert status_of(rig)["waiting"] > 0


def payloads(sent):
    return [orjson.loads(line) for line in lines(sent).splitlines() if line]
