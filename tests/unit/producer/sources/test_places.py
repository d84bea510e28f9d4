"""What a place holds that is watched, and how its files are told apart."""

import os
from datetime import UTC, datetime

import pytest

from segrelay.producer.backfill.watches import Version
from segrelay.producer.sources.opening import listing_of, look_at_file
from segrelay.producer.sources.remote import Found
from segrelay.worker.errors import UsageWrong

AT_NS = 1_795_900_000_123_456_789


@pytest.fixture
def place(tmp_path):
    for name in ("b.csv", "a.csv", "a[1].csv", ".hidden", "_SUCCESS", "c.csv.part", "d.json"):
        (tmp_path / name).write_text("email\n")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "e.csv").write_text("email\n")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("/", ["a.csv", "a[1].csv", "b.csv", "d.json"]),
        ("", ["a.csv", "a[1].csv", "b.csv", "d.json"]),
        ("/*.csv", ["a.csv", "a[1].csv", "b.csv"]),
        ("/*/*.csv", ["e.csv"]),
        ("/none-*/*.csv", []),
        ("/a.csv", ["a.csv"]),
        ("/none.csv", []),
    ],
)
def test_a_place_holds_the_finished_files_of_a_folder_or_a_pattern(place, source, names):
    found = listing_of(f"{place}{source}")

    assert [os.path.basename(name) for name in found] == names  # noqa: PTH119
    assert all(one == look_at_file(name) for name, one in found.items())


@pytest.mark.parametrize("source", ["/none/", "/none/*.csv", "/none/a.csv", "/none/*/a.csv"])
def test_a_folder_that_is_not_there_is_not_an_empty_one(place, source):
    with pytest.raises(UsageWrong, match=f"The folder {place}/none can't be listed"):
        listing_of(f"{place}{source}")


@pytest.mark.parametrize(
    "other",
    [
        Found(8, "", AT_NS),
        Found(7, "", AT_NS + 1),
        Found(7, "etag", AT_NS),
    ],
)
def test_another_size_time_or_tag_is_another_version(other):
    assert Version.of("a.csv", other) != Version.of("a.csv", Found(7, "", AT_NS))


def test_a_file_of_another_name_is_another_version():
    found = Found(7, "", AT_NS)

    assert Version.of("a.csv", found).name != Version.of("b.csv", found).name


def test_of_an_object_the_parts_of_a_second_do_not_count():
    at = datetime(2026, 11, 25, 6, tzinfo=UTC)
    listed = Found(7, '"etag"', int(at.timestamp()) * 1_000_000_000 + 123_000_000)
    looked = Found(7, '"etag"', int(at.timestamp()) * 1_000_000_000)

    assert Version.of("s3://b/a", listed) == Version.of("s3://b/a", looked)
