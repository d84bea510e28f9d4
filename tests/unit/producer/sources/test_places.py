"""What a place holds that is watched."""

import os

import pytest

from segrelay.producer.sources.opening import listing_of, look_at_file
from segrelay.worker.errors import UsageWrong


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
