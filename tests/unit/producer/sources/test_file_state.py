"""The state of a file: a file that is rewritten while it is read does not pass for one file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import look_at_file, opened
from segrelay.producer.sources.tables import Columns
from segrelay.worker.errors import SourceChanged

LINES = b'{"email":"ann@example.com"}\n{"email":"bob@example.com"}\n'


def rewritten(path: Path) -> None:
    path.write_bytes(LINES.replace(b"bob", b"eve"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(LINES)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(10)


@pytest.mark.parametrize("change", [rewritten, grown, cut])
def test_a_file_that_is_written_to_while_it_is_read_is_refused(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(LINES)

    with opened(str(path)) as found:
        change(path)
        list(blocks_of(found, Columns()))
        with pytest.raises(SourceChanged, match="was written to while it was read"):
            found.refuse_change()


def replaced(path: Path, other: Path) -> None:
    other.write_bytes(LINES + LINES)
    other.rename(path)


@pytest.mark.parametrize("touch", [os.link, lambda path, _: path.chmod(0o600), os.rename, replaced])
def test_a_new_link_name_permission_or_file_of_its_name_changes_nothing_of_what_is_read(
    touch: Callable[[Path, Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(LINES)

    with opened(str(path)) as found:
        rows = (row for block in blocks_of(found, Columns()) for row in block.payloads())
        first = next(rows)
        touch(path, tmp_path / "other")
        found.refuse_change()
        read = [first, *rows]
        found.refuse_change()

    assert len(read) == 2


def test_another_file_of_the_same_name_has_another_state(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(LINES)
    before = look_at_file(path)
    (tmp_path / "next").write_bytes(LINES)
    os.utime(tmp_path / "next", ns=(0, path.stat().st_mtime_ns))
    (tmp_path / "next").rename(path)

    assert look_at_file(path) != before


def test_what_is_no_file_has_no_state(tmp_path: Path) -> None:
    assert look_at_file(tmp_path) is None
    assert look_at_file(tmp_path / "missing") is None
