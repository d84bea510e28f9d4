from pathlib import Path

import pytest

from segrelay.ops.embedded.lifecycle import find_server, why_unfit


def program(folder: Path, name: str, said: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{said}'\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Redis server v=7.0.15 sha=0", "Redis 7.0.15"),
        ("Valkey server v=7.2.5 sha=0", "Valkey 7.2.5"),
        ("hello", "does not say its version"),
        ("Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1", ""),
        ("Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1", ""),
    ],
)
def test_a_server_that_is_not_new_enough_is_told_why(tmp_path: Path, said: str, reason: str):
    why = why_unfit(program(tmp_path, "server", said))

    assert reason in why
    assert bool(why) is bool(reason)


def test_a_program_that_does_not_run_does_not_serve(tmp_path: Path):
    (tmp_path / "server").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "server").chmod(0o755)

    assert "does not run" in why_unfit(tmp_path / "server")
    assert "does not run" in why_unfit(tmp_path / "nothing")


def test_the_packaged_server_serves():
    assert why_unfit(find_server()) == ""
