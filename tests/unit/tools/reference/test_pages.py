"""The reference pages say what the settings and the commands are."""

from functools import cache

from segrelay.ops.main import COMMANDS
from tools.reference import FOLDER, pages

PAGES = cache(pages)


def test_the_reference_pages_are_what_make_docs_writes() -> None:
    stale = [name for name, text in PAGES().items() if (FOLDER / name).read_text() != text]

    assert stale == [], "Run `make docs`, and commit what it writes."


def test_the_reference_shows_every_table_and_every_command() -> None:
    configuration, commands = (PAGES()[f"{name}.md"] for name in ("configuration", "commands"))

    assert "## `[destinations.NAME]`" in configuration
    assert '| `lease` | duration, 3s to 10m | `"10s"` |' in configuration
    assert [name for name in COMMANDS if f"### `segrelay {name}`" not in commands] == []
