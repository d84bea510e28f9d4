"""A sync whose source is the newest export in a folder."""

import gzip
import os
import time

import pytest

from segrelay.producer.sources.opening import zstd
from segrelay.producer.sources.tables import Columns
from segrelay.producer.sync.sources import ExportMissing, FileSource
from segrelay.producer.sync.store import Phase
from segrelay.worker.errors import ScanExpired, UsageWrong
from tests.integration.producer.sync_world import aged, emails
from tests.nightly import amount


def test_the_newest_export_says_who_is_in_the_audience(world, exports):
    exports("1.csv", range(2_500), minutes_ago=30)
    world.run()
    world.clear()
    exports("2.csv", range(40, 2_501), minutes_ago=20)

    run = world.run(small_steps=True)

    assert (run.rows, run.entered, run.left) == (2_461, 1, 40)
    assert world.deliveries()[0] == ("enter", "p2500@example.com")
    assert len(world.deliveries()) == 41
    assert {one.header.time_us for one in world.waiting()} == {run.at_us}


def test_an_export_that_was_read_before_has_nothing_new_to_tell(world, exports):
    exports("1.csv", range(10), minutes_ago=30)
    world.run()
    world.clear()

    run = world.run()

    assert (run.last["outcome"], world.deliveries()) == ("unchanged", [])
    assert (run.members, run.line().partition(":")[0]) == (10, "unchanged")
    exports("2.csv", range(11), minutes_ago=20)
    assert world.run().entered == 1


def test_an_older_export_than_the_last_is_refused(world, exports):
    newest = exports("2.csv", range(10), minutes_ago=20)
    exports("1.csv", range(5), minutes_ago=30)
    world.run()
    newest.unlink()

    with pytest.raises(UsageWrong, match="older than the one"):
        world.syncing().step(forced=True)


def test_an_export_that_is_still_being_written_is_left(world, exports):
    exports("2.csv", range(10), minutes_ago=0)
    exports("3.csv.part", range(10), minutes_ago=10)

    with pytest.raises(ExportMissing, match="no complete file"):
        world.syncing().step(forced=True)

    run = world.syncing().store.peek()
    assert (run.failures, run.refused) == (1, False), "one may come: that is not ill at once"


@pytest.mark.parametrize(
    ("content", "doubt"),
    [
        ("", "the file has no rows, 10 members missing"),
        ("email,first_name\n", "the file has no rows, 10 members missing"),
        ("email,first_name\np1@example.com,Ann\n\0,broken,row,with,more\n", "can't be read"),
    ],
)
def test_an_export_in_doubt_takes_nobody_out_until_somebody_confirms_it(
    world, exports, content, doubt
):
    exports("1.csv", range(10), minutes_ago=30)
    world.run()
    world.clear()
    newest = exports("2.csv", range(0), minutes_ago=20)
    newest.write_text(content)
    aged(newest, 20)

    run = world.run()

    assert run.phase is Phase.CONFIRM
    assert doubt in run.doubt
    assert world.deliveries() == []


class Meddler(FileSource):
    """Its file is written to by somebody else at one of its calls."""

    def __init__(self, source, meddle):
        self.__dict__ = source.__dict__
        self._meddle = meddle

    def page(self, *args):
        self._meddle()
        return super().page(*args)

    def _read(self, file):
        self._meddle()
        return super()._read(file)

    def refuse_change(self, origin):
        self._meddle()
        super().refuse_change(origin)


def rewritten_at(world, exports, call):
    """Rewrite the newest export in place at one call of a run; returns how many calls it had."""
    world.client.flushall()
    newer = exports("2.csv", range(0), minutes_ago=0)
    exports("1.csv", range(2_300), minutes_ago=60)
    world.run()
    exports("2.csv", range(80, 2_500), minutes_ago=20)

    calls = 0

    def meddle():
        nonlocal calls
        calls += 1
        if calls != call:
            return
        with newer.open("r+") as file:
            file.truncate(len("email,first_name\n"))
            file.seek(0, os.SEEK_END)
            file.writelines(f"p{n}@example.com,Ann\n" for n in reversed(range(40, 2_450)))
        aged(newer, 10)

    syncing = world.syncing()
    run = world.run(open_source=lambda sleep: Meddler(syncing.open_source(sleep), meddle))
    assert run.phase is Phase.IDLE
    return calls


def test_a_file_that_is_rewritten_in_place_takes_out_only_who_left(world, exports):
    before, after = emails(range(80, 2_500)), emails(range(40, 2_450))
    calls = rewritten_at(world, exports, 0)
    for call in [*range(1, calls + 1, amount(2, nightly=1))] * amount(1, nightly=3):
        rewritten_at(world, exports, call)

        gone = {email for direction, email in world.deliveries() if direction == "exit"}
        assert not gone & before & after, call
        assert gone <= emails(range(2_500)) - (before & after), call
        run = world.run()
        assert run.last["outcome"] in {"done", "unchanged"}
        assert (world.known(), world.inside()) == (after, after), call


def test_exits_wait_where_a_file_goes_on_growing_after_it_was_read(world, exports):
    exports("1.csv", range(1_500), minutes_ago=60)
    world.run()
    newest = exports("2.csv", range(1_400), minutes_ago=20)
    syncing = world.syncing()
    while (run := syncing.store.peek()).phase is not Phase.EXITS:
        assert syncing.step(forced=run.number == 1, is_over=lambda: True).more
    with newest.open("a") as file:
        file.writelines(f"p{n}@example.com,Ann\n" for n in range(1_400, 1_500))
    aged(newest, 10)

    while syncing.step().more:
        pass

    run = syncing.store.peek()
    assert (run.last["outcome"], run.restarts, run.left) == ("done", 1, 0)
    assert world.inside() == emails(range(1_500))


PACKED = {"csv": bytes, "csv in gzip": gzip.compress, "csv in zstd": zstd.compress}
"""A sample; `tests/unit/producer/sources/test_cuts.py` cuts each form anywhere."""


@pytest.mark.parametrize("how", PACKED)
def test_an_export_that_is_cut_off_takes_nobody_out_and_a_whole_one_does(how, world, exports):
    world.configure(source="file:exports/*")
    exports("1", range(1_500), minutes_ago=60)
    assert world.run().entered == 1_500
    newest = exports("2", range(40, 1_500), minutes_ago=20)
    whole = PACKED[how](newest.read_bytes())
    world.clear()

    for share in (0.5, 0.99, 0.999):
        newest.write_bytes(whole[: int(len(whole) * share)].rstrip(b"\r\n}"))
        aged(newest, 20)
        run = world.run()

        assert (run.last["outcome"], run.left, run.phase) == ("damaged", 0, Phase.IDLE)
        assert "is damaged" in run.problem
        assert world.deliveries() == []

    newest.write_bytes(whole)
    aged(newest, 20)
    run = world.run()

    assert (run.last["outcome"], run.left, run.problem, run.failures) == ("done", 40, "", 0)


def people_of(count):
    return "".join(f'{{"email":"p{n}@example.com"}}\n' for n in range(count)).encode()


def file_source(path, **options):
    return FileSource(str(path), Columns(), now=lambda: time.time() + 60, **options)


def test_the_lock_is_kept_while_another_process_reads_up_to_where_the_scan_is(tmp_path):
    path = tmp_path / "export.ndjson"
    path.write_bytes(people_of(5_000))
    with file_source(path) as source:
        start = source.page("").following
        for _ in range(3):
            start = source.page(start).following
    stayed = []

    with file_source(path, stay_seconds=0.0) as other:
        page = other.page(start, lambda: stayed.append(1))

    assert len(stayed) == 4
    assert [row["email"] for row in page.rows[:2]] == ["p4000@example.com", "p4001@example.com"]


def test_a_file_that_was_written_to_between_two_pages_has_expired(tmp_path):
    path = tmp_path / "export.ndjson"
    path.write_bytes(people_of(2_500))
    with file_source(path) as source:
        start = source.page("").following
        path.write_bytes(people_of(2_400))

        with pytest.raises(ScanExpired):
            source.page(start)
