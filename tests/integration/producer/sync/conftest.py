"""A Lytics of one's own for each test of a sync, and a Redis."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.producer.sync_world import World, aged


@pytest.fixture
def world(tmp_path, redis_url, sandbox, client) -> World:
    return World(tmp_path, redis_url, sandbox, client)


@pytest.fixture
def exports(world: World, tmp_path: Path) -> Callable[..., Path]:
    """Write an export whose time is so many minutes ago."""
    world.configure(source="file:exports/*.csv")
    (tmp_path / "exports").mkdir()

    def write(name: str, numbers: range, *, minutes_ago: float) -> Path:
        path = tmp_path / "exports" / name
        rows = "".join(f"p{n}@example.com,Ann\n" for n in numbers)
        path.write_text("email,first_name\n" + rows)
        return aged(path, minutes_ago)

    return write
