"""Commands whose standard streams are closed, full, or can't show every character."""

import json
import os
import subprocess

import pytest

from segrelay.ops.config.commands import init
from segrelay.ops.embedded import ensure_running, stop
from segrelay.ops.run.up import own_command
from tests.nightly import amount
from tests.ports import own_port
from tests.waiting import patient

COMMANDS = {
    "refused": ("config", "show", "--config", "nowhere.toml"),
    "show": ("config", "show"),
    "send": ("send", "-"),
    "status": ("status",),
}
ALL = "<&- >&- 2>&-"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relay")
    init(folder)
    ensure_running(folder / ".segrelay", wait_seconds=60)
    yield folder
    stop(folder / ".segrelay")


def called(folder, command, streams="", begin="", **environ):
    shell = f'{begin} exec "$@" {streams}'
    env = {name: value for name, value in os.environ.items() if not name.startswith("SEGRELAY_")}
    return subprocess.run(
        ["/bin/bash", "-c", shell, "bash", *own_command(*command)],
        cwd=folder,
        env={**env, "PYTHONUNBUFFERED": "", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=patient(120),
        check=False,
    )


TRIED = [
    *(("show", streams) for streams in amount((">/dev/full", ALL), (">&-", ">/dev/full", ALL))),
    *(("refused", streams) for streams in amount((), ("2>&-", "2>/dev/full"))),
    ("send", "<&-"),
    *amount((), (("status", ALL),)),
]
"""One that prints and one that does not lose each stream."""


@pytest.mark.parametrize(("name", "streams"), TRIED)
def test_a_stream_that_is_closed_or_full_gives_a_message_and_an_exit_code(folder, name, streams):
    found = called(folder, COMMANDS[name], streams)

    assert b"Traceback" not in found.stderr
    assert b"This should not have happened" not in found.stderr
    if name != "refused" and streams in LOSES_THE_RESULT:
        assert found.returncode == 1
        assert "2>" in streams or b"Standard output could not be written" in found.stderr
    else:
        usual = called(folder, COMMANDS[name])
        assert found.returncode == usual.returncode
        assert len(found.stdout.splitlines()) == len(usual.stdout.splitlines())


LOSES_THE_RESULT = {">&-", ALL, ">/dev/full"}


def test_a_character_that_an_encoding_lacks_is_an_escape_and_json_stays_json(folder):
    slug = "Zoë 🎈 Ω"
    event = {"slug": slug, "event": "enter", "enter": "2026-11-29T06:00:00Z"}
    profile = {"email": "zoe@example.com", "segment_events": [event]}
    (folder / "zoe.json").write_text(json.dumps(profile))
    called(folder, ("send", "zoe.json"))

    found, listed = (
        called(folder, ("quarantine", "list", *more), PYTHONIOENCODING="iso-8859-1:strict")
        for more in ((), ("--json",))
    )

    assert (found.returncode, listed.returncode) == (0, 0)
    assert r"\u03a9" in found.stdout.decode("iso-8859-1")
    assert slug in json.dumps(json.loads(listed.stdout.decode("iso-8859-1")), ensure_ascii=False)


def test_up_whose_reader_goes_ends_in_order(tmp_path):
    init(tmp_path)
    process = subprocess.Popen(
        own_command("up", "--sandbox"),
        cwd=tmp_path,
        env={**os.environ, "SEGRELAY_SANDBOX": f"http://127.0.0.1:{own_port()}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline()
        process.stdout.close()
        process.wait(patient(120))
        errors = process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        stop(tmp_path / ".segrelay-sandbox")

    assert process.returncode == 1
    assert b"Traceback" not in errors


def test_a_pipe_whose_reader_has_gone_is_not_reported(folder):
    found = called(folder, ("config", "show"), ">&9", "exec 9> >(exec true); wait $!;")

    assert (found.returncode, found.stderr) == (1, b"")
