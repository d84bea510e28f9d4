"""Files in buckets: objects of S3, Google Cloud and Azure.

An object is read where it is, and each look at it, before and after a range, has to find the
version that was opened, which its ETag tells; so rows never come from two versions.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import Any, Final, NamedTuple

from segrelay.worker.contract.settings.urls import BUCKETS
from segrelay.worker.errors import OperationsMustAct, SourceChanged, SourceUnavailable, UsageWrong

RANGE_BYTES: Final = 8 * 1024 * 1024
"""The bytes of one request to a bucket; as many are held in memory."""
_WILD: Final = re.compile(r"[*?\[]")
_HIDDEN: Final = ("_", ".")
"""The beginnings of names that writers give to what is no data, such as `_SUCCESS`."""
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 30}},
    "gs": {},
    "az": {"anon": False},
}
_LOOK_SECONDS: Final = 20.0
"""The seconds for a look at an object; Azure's library alone would try for 84."""
_PUT_SECONDS: Final = 120.0
_CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or the machine's identity",
}
_NOT_THERE: Final = {"ResourceNotFoundError"}
"""The exceptions that say the same as FileNotFoundError: adlfs lets them through when it writes."""
_WITHOUT_CREDENTIALS: Final = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
    "CredentialUnavailableError",
}
"""The exceptions of the clouds' libraries that say that no credentials, or only some, are there."""


class NotThere(UsageWrong):
    """The file or object that a URL names is not there."""


class FileState(NamedTuple):
    """The identity of a file's content at one moment.

    Attributes:
        version: The ETag, or what stands for one; of a file of this machine its inode.
        changed_ns: The time of the last write, which anybody may set; 0 = it is not told.
    """

    size: int
    version: str
    changed_ns: int


class BucketFile(io.RawIOBase):
    """An object that is read in ranges: each is asked for when it is read."""

    def __init__(self, bucket: Bucket) -> None:
        self.state: Final = bucket.look()
        self._bucket = bucket
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; no request is made."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.state.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what io hands over
        """Read the next bytes.

        Raises:
            SourceChanged: They are of another version than the one that was opened.
            SourceUnavailable: There is no answer.
        """
        end = min(self._at + len(buffer), self.state.size)
        if self._at >= end:
            return 0
        try:
            piece = self._bucket.read(self._at, end)
            # What was read before the look is of the version that the look still finds.
            is_same = self._bucket.look() == self.state
        except NotThere:
            is_same = False
        if not is_same or len(piece) != end - self._at:
            url = self._bucket.url
            raise SourceChanged(f"{url} was written to, or removed, while it was read.")
        buffer[: len(piece)] = piece
        self._at = end
        return len(piece)


def names_several(url: str) -> bool:
    """Say whether a URL is a pattern, or names all objects below it (`…/`)."""
    return url.endswith("/") or bool(_WILD.search(url))


class Bucket:
    """An object, or several, in a bucket, as fsspec reaches them.

    Args:
        url: The URL of an object, or the pattern or prefix of several.

    Raises:
        UsageWrong: An extra is not installed, or the URL holds a password.
    """

    def __init__(self, url: str) -> None:
        self.url: Final = url
        self._scheme = url.partition("://")[0]
        if "@" in url.split("/")[2]:
            raise UsageWrong(
                f"{self._scheme}://: a URL with a password is refused, since a job would keep it. "
                f"Set {_CREDENTIALS[self._scheme]}."
            )
        try:
            import_module(BUCKETS[self._scheme])
            fsspec = import_module("fsspec")
        except ImportError as error:
            raise UsageWrong(
                f"{self._scheme}:// needs an extra that is not installed: "
                f"pip install 'segrelay[{self._scheme}]'."
            ) from error
        with self._asking():
            self._files: Any = fsspec.filesystem(
                self._scheme, use_listings_cache=False, **_OPTIONS[self._scheme]
            )

    def look(self) -> FileState:
        """Return the identity of the object.

        Raises:
            NotThere: There is none.
        """
        with self._asking():
            info: Mapping[str, Any] = self._files.info(self.url, timeout=_LOOK_SECONDS)
        if info["type"] != "file":
            raise NotThere(f"{self.url} is a folder; name its objects: '{self.url.rstrip('/')}/'.")
        return _state(info)

    def read(self, begin: int, end: int) -> bytes:
        """Return the bytes of the object from one position to another."""
        with self._asking():
            data: bytes = self._files.cat_file(self.url, start=begin, end=end)
        return data

    def listing(self, *, may_be_empty: bool = False) -> dict[str, FileState]:
        """Return the objects that fit the pattern, or lie below the prefix, by URL; sorted.

        Raises:
            NotThere: There is no such bucket, or no such object unless there may be none.
        """
        source = self.url
        with self._asking():
            try:
                if source.endswith("/"):
                    found = self._files.find(source, detail=True)
                    found = {name: one for name, one in found.items() if not _is_hidden(name)}
                else:
                    found = self._files.glob(source, detail=True)
            except FileNotFoundError:
                found = {}
            bucket = "/".join(source.split("/")[:3])
            if not found and not (may_be_empty and self._files.exists(bucket)):
                raise FileNotFoundError
        return {
            f"{self._scheme}://{name}": _state(one)
            for name, one in sorted(found.items())
            if one["type"] == "file"
        }

    def has(self) -> bool:
        try:
            self.look()
        except NotThere:
            return False
        return True

    def put(self, content: bytes) -> None:
        """Write the object, which appears as a whole; one that is there already stays."""
        try:
            with self._asking():
                self._files.pipe_file(self.url, content, mode="create", timeout=_PUT_SECONDS)
        except _Exists:
            return
        except OperationsMustAct:
            if not self.has():
                raise

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn the exceptions of the clouds' libraries into ours; their texts may hold secrets."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotThere(f"{self.url}: there is no such object or bucket.") from error
        except FileExistsError as error:
            raise _Exists(f"{self.url} is there already.") from error
        except PermissionError as error:
            raise UsageWrong(
                f"{self.url}: access is denied. The credentials of this environment "
                f"({_CREDENTIALS[self._scheme]}) are wrong, or may not do this."
            ) from error
        except Exception as error:  # each cloud's library has its own
            kind = type(error).__name__
            if kind in _NOT_THERE:
                raise NotThere(f"{self.url}: there is no such object or bucket.") from error
            if kind in _WITHOUT_CREDENTIALS:
                raise UsageWrong(
                    f"{self.url}: there are no credentials. Set {_CREDENTIALS[self._scheme]}."
                ) from error
            raise SourceUnavailable(
                f"{self.url} can't be reached ({kind}). Try it again later; a job goes on where it "
                "stopped with `segrelay backfill resume`."
            ) from error


class _Exists(UsageWrong):
    """An object of this name is there already."""


def _state(info: Mapping[str, Any]) -> FileState:
    version = info.get("ETag") or info.get("etag") or info.get("generation") or ""
    changed = info.get("LastModified") or info.get("last_modified") or info.get("mtime")
    return FileState(int(info["size"]), str(version), _nanoseconds(changed))


def _is_hidden(name: str) -> bool:
    return name.endswith("/") or name.rpartition("/")[2].startswith(_HIDDEN)


def _nanoseconds(moment: Any) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000 if isinstance(moment, datetime) else 0
