"""The version of the commit before works beside this one, on the same Redis."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import orjson
import pytest

from tests.journeys.play import (
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    start_worker,
    stop_worker,
    watched,
)
from tests.waiting import until

ROOT = Path(__file__).parents[2]
BEFORE = os.environ.get("SEGRELAY_BEFORE", "HEAD~1")
"""The commit that is compared with; after a release, its tag."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the version before, unpacked: what is found there is imported first."""
    asked = ["git", "rev-parse", "-q", "--verify", BEFORE]
    if subprocess.call(asked, cwd=ROOT):
        pytest.skip(f"git has no {BEFORE} here, as in a shallow clone.")
    folder = tmp_path_factory.mktemp("before")
    archive, source, installed = (folder / name for name in ("before.tar", "source", "installed"))
    for command, at in (
        (["git", "archive", "-o", str(archive), BEFORE], ROOT),
        ([sys.executable, "-m", "tarfile", "-e", str(archive), str(source)], ROOT),
        ([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], source),
    ):
        subprocess.run(command, cwd=at, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    shutil.unpack_archive(wheel, installed, "zip")
    return installed


def launch_at(folder: Path, command: list[str], *, env: dict[str, str], **options):
    return subprocess.Popen(command, env=env | {"PYTHONPATH": str(folder)}, **options)


def test_events_flow_through_workers_of_two_versions_and_both_see_each_other(tmp_path, before):
    happened, sent = invent(2_000, 300)
    with Rig(tmp_path, sandbox_settings={"latency_seconds": 0.02}) as rig, watched(rig):
        launches = {"before": partial(launch_at, before), "now": rig.launch}

        def run(version: str, *words: str, given: bytes = b""):
            rig.launch = launches[version]
            done = rig.command(*words, "--json", given=given)
            assert done.returncode == 0, done.stderr.decode()
            return orjson.loads(done.stdout)

        worker = None
        turns = [("before", "now"), ("now", "before"), ("before", "now")]
        for at, (version, other) in enumerate(turns):
            rig.launch = launches[version]
            following = start_worker(rig)
            run(other, "send", "-", given=lines(sent[at :: len(turns)]))
            if worker:
                for looking in launches:
                    until(lambda v=looking: len(run(v, "status")["processes"]) >= 2, 30)
                assert stop_worker(worker)[0] == 0
            rig.wait_until_empty(60)
            assert b"request.answered" in rig.worker_log(at).read_bytes()
            worker = following

        nothing_is_wrong(rig, happened)
        assert "record_unreadable" not in str(run("before", "status"))
