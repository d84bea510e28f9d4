"""Sources of payloads that a person names: a file, or standard input."""

from __future__ import annotations

import hashlib
import io
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Final

from producer.payloads import Payload, payloads_in
from worker.errors import UsageWrong

STANDARD_INPUT: Final = "-"
BATCH_PAYLOADS: Final = 1_000
BATCH_BYTES: Final = 4 * 1024 * 1024
_SNIFFED_BYTES: Final = 4_096
_MAGIC: Final = {
    b"\x1f\x8b": "gzip: `zcat FILE | segrelay send -`",
    b"\x28\xb5\x2f\xfd": "zstd: `zstdcat FILE | segrelay send -`",
    b"PK\x03\x04": "a zip archive: `unzip -p FILE | segrelay send -`",
    b"\xff\xfe": "UTF-16: `iconv -f utf-16 -t utf-8 FILE | segrelay send -`",
    b"\xfe\xff": "UTF-16: `iconv -f utf-16 -t utf-8 FILE | segrelay send -`",
}


@contextmanager
def opened(name: str) -> Iterator[io.BufferedReader]:
    """Open a source and look whether it can be JSON at all.

    Args:
        name: Path of a file, or `-` for standard input.

    Raises:
        UsageWrong: It is missing, a directory, unreadable, or no text.
    """
    with _stream(name) as stream:
        _sniff(name, stream.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES])
        yield stream


def digest_of_file(name: str, *, salt: str) -> str:
    """Return what tells this file's content from any other; "" where it can't be read twice.

    Args:
        name: As for `opened`.
        salt: What else decides about the deliveries that come of it.
    """
    if name == STANDARD_INPUT or not stat.S_ISREG(Path(name).stat().st_mode):
        return ""
    with Path(name).open("rb") as file:
        content = hashlib.file_digest(file, "sha256")
    content.update(f"|{salt}|{BATCH_PAYLOADS}|{BATCH_BYTES}".encode())
    return content.hexdigest()[:24]


def batches(payloads: Iterable[Payload]) -> Iterator[list[Payload]]:
    """Yield payloads by the thousand, or by 4 MB; always the same ones of the same source."""
    batch: list[Payload] = []
    count = size = 0
    for payload in payloads:
        batch.append(payload)
        count += payloads_in(payload.value)
        size += len(payload.text)
        if count >= BATCH_PAYLOADS or size >= BATCH_BYTES:
            yield batch
            batch, count, size = [], 0, 0
    if batch:
        yield batch


def _stream(name: str) -> nullcontext[io.BufferedReader] | io.BufferedReader:
    if name == STANDARD_INPUT:
        raw: BinaryIO = sys.stdin.buffer
        reader = raw if isinstance(raw, io.BufferedReader) else _buffered(raw)
        return nullcontext(reader)
    path = Path(name)
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise UsageWrong(f"{name}: there is no such file.") from error
    except IsADirectoryError as error:
        raise UsageWrong(f"{name} is a directory; name a file, or - for standard input.") from error
    except PermissionError as error:
        raise UsageWrong(f"{name} can't be read: permission denied.") from error
    except (OSError, ValueError) as error:
        raise UsageWrong(f"{name} can't be opened: {type(error).__name__}.") from error


def _buffered(raw: BinaryIO) -> io.BufferedReader:
    """Wrap a stand-in for standard input that has no `peek`."""
    return io.BufferedReader(io.BytesIO(raw.read()))


def _sniff(name: str, head: bytes) -> None:
    for magic, hint in _MAGIC.items():
        if head.startswith(magic):
            raise UsageWrong(f"{name} is not JSON text but {hint}.")
    if b"\x00" in head:
        raise UsageWrong(f"{name} is not JSON text: it holds binary zeros.")
