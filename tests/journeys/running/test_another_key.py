"""The key of people's data is changed while deliveries wait, and nobody is wrong or found."""

import subprocess
import time

import orjson

from segrelay.ops.run.up import own_command
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

FORMER, PRESENT, WRONG = f"{'A' * 43}=", f"{'B' * 42}A=", f"{'C' * 42}A="
KILLED_AFTER_SECONDS = (0.2, 0.4, 0.6, 0.8)


def configure(rig, *own):
    """Write another list of keys into the configuration; none = no table of them."""
    path = rig.folder / "segrelay.toml"
    text = path.read_text().partition("[protection]")[0]
    path.write_text(text + (f"[protection]\nkey = {orjson.dumps(own).decode()}\n" if own else ""))


def run(rig, *words):
    done = rig.command(*words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return orjson.loads(done.stdout) if "--json" in words else done.stdout


def rotate_killed(rig):
    """Kill the command at several moments, and then let it come to its end."""
    for seconds in KILLED_AFTER_SECONDS:
        with subprocess.Popen(
            own_command("protection", "rotate"), env=rig.environment, stdout=subprocess.DEVNULL
        ) as rotating:
            time.sleep(seconds)
            rotating.kill()
    run(rig, "protection", "rotate")


def test_the_key_is_changed_while_deliveries_wait(tmp_path):
    happened, sent = invent(300, 60, seed=9)
    with Rig(tmp_path, delivery_lines=SHORT, more=f'[protection]\nkey = ["{FORMER}"]\n') as rig:
        rig.client.config_set("rdbcompression", "no")  # so that a backup can be searched
        start_worker(rig)
        send(rig, lines(sent[:100]))
        rig.wait_until_empty(60)
        run(rig, "pause", "enter", "--reason", "some wait while the key is changed")
        send(rig, lines(sent[100:200]))
        rig.kill_workers()

        configure(rig, PRESENT, FORMER)
        start_worker(rig)
        assert rig.command("protection", "status").returncode == 1
        rotate_killed(rig)
        acts = [one for one in run(rig, "audit", "--json") if one["what"] == "protection rotate"]
        configure(rig, PRESENT)
        rig.kill_workers()
        refused(rig)
        configure(rig, PRESENT)
        start_worker(rig)
        run(rig, "resume", "enter")
        send(rig, lines(sent[200:]))
        rig.wait_until_empty(60)
        run(rig, "redis", "backup", str(rig.folder / "backup.rdb"))

        nothing_is_wrong(rig, happened)
        assert len(acts) == 1
        assert run(rig, "protection", "status", "--json")["sealed_with"] == [acts[0]["subject"]]
        emails = [email.encode() for email in {one["data"]["email"] for one in payloads(sent)}]
        written = b"\n".join(b" ".join(words) for words in commands_of(rig.settings.redis.data_dir))
        for copy in (written, (rig.folder / "backup.rdb").read_bytes()):
            assert b"{segrelay}:protection" in copy
            assert not [email for email in emails if email in copy]


def refused(rig):
    """Nobody without the right key begins, and what waits goes on waiting."""
    for own, says in (([WRONG], b"is protected with the key"), ([], b"Set [protection] key")):
        configure(rig, *own)
        for command in (("status",), ("worker",), ("send", "-"), ("why", "a@example.com")):
            done = rig.command(*command)
            assert done.returncode == 1, (command, done.stdout)
            assert says in done.stderr, (command, done.stderr)
            assert b"Traceback" not in done.stderr
    configure(rig, PRESENT)
    assert status_of(rig)["waiting"] > 0


def payloads(sent):
    return [orjson.loads(line) for line in lines(sent).splitlines() if line]
