"""Files that lie elsewhere: objects in buckets (S3, Google Cloud, Azure) and on web servers.

An object is read where it is, and each look at it, before and after a range, has to find the
version that was opened, which its ETag tells; so rows never come from two versions. A file on a web
server is downloaded first, as one answer.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from tempfile import TemporaryFile, gettempdir
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from segrelay.worker.contract.own_processes import deferred
from segrelay.worker.contract.settings.urls import BUCKETS, is_loopback
from segrelay.worker.errors import OperationsMustAct, SourceChanged, SourceUnavailable, UsageWrong

if TYPE_CHECKING:
    import httpx
else:
    httpx = deferred("httpx")

RANGE_BYTES: Final = 8 * 1024 * 1024
"""The bytes of one request to a bucket; as many are held in memory."""
_WAITS_SECONDS: Final = (0.25, 0.5, 1.0, 2.0)
"""The waits between the tries to reach a web server; fsspec's libraries have their own."""
_ANSWER_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 5.0
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
        inode_changed_ns: The time when that, or anything else of the inode, was last changed or
            set; 0 for a file that lies elsewhere.
    """

    size: int
    version: str
    changed_ns: int
    inode_changed_ns: int = 0


class BucketFile(io.RawIOBase):
    """An object that is read in ranges: each is asked for when it is read.

    Args:
        bucket: The bucket that holds the object.
        url: The address of the object.
    """

    def __init__(self, bucket: Bucket, url: str) -> None:
        self.state: Final = bucket.look(url)
        self._bucket = bucket
        self._url = url
        self._at = 0

    def readable(self) -> bool:
        """Say that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any position can be read."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; nothing is asked for."""
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
            piece = self._bucket.read(self._url, self._at, end)
            # What was read before the look is of the version that the look still finds.
            is_same = self._bucket.look(self._url) == self.state
        except NotThere:
            is_same = False
        if not is_same or len(piece) != end - self._at:
            raise SourceChanged(f"{self._url} was written to, or removed, while it was read.")
        buffer[: len(piece)] = piece
        self._at = end
        return len(piece)

    def digest(self) -> str:
        """Return the same text for the same content, as far as the version tells."""
        told = f"{self.state.version}|{self.state.size}"
        return hashlib.sha256(told.encode()).hexdigest()[:24]


def _unreachable(name: str, error: Exception) -> SourceUnavailable:
    return SourceUnavailable(
        f"{name} can't be reached ({type(error).__name__}). Try it again later; a job goes on "
        "where it stopped with `segrelay backfill resume`."
    )


@contextmanager
def open_remote(url: str) -> Iterator[tuple[BucketFile | io.FileIO, FileState]]:
    """Open a file that lies elsewhere; a copy of it if it lies on a web server.

    Raises:
        UsageWrong: It is not there, may not be read, or an extra is not installed.
        SourceUnavailable: There is no answer.
    """
    if _scheme(url) in BUCKETS:
        with BucketFile(Bucket(url), url) as file:
            yield file, file.state
        return
    with TemporaryFile(buffering=0) as copy:
        state = _ask_web(url, copy)
        yield copy, state


def expand(source: str) -> list[str]:
    """Return the files that a URL names: one, those of a pattern, or all below a prefix (`…/`).

    Raises:
        UsageWrong: There is none; as `open_remote`.
    """
    if not _names_several(source):
        return [source]
    found = Bucket(source).listing(source)
    if not found:
        raise UsageWrong(f"{source}: there is no such object.")
    return list(found)


def list_remote(source: str) -> dict[str, FileState]:
    """Return the files that a URL names, with their identities, by URL; there may be none yet.

    Raises:
        UsageWrong: The bucket is not there, or can't be listed; as `open_remote`.
        SourceUnavailable: There is no answer.
    """
    if _names_several(source):
        return Bucket(source).listing(source, has_to_be_there=True)
    found = look_at_remote(source)
    return {source: found} if found else {}


def look_at_remote(url: str) -> FileState | None:
    """Return the identity of a file that lies elsewhere; None if it is not there.

    Raises:
        UsageWrong: It may not be read; as `open_remote`.
        SourceUnavailable: There is no answer.
    """
    with suppress(NotThere):
        found = Bucket(url).look(url) if _scheme(url) in BUCKETS else _ask_web(url)
        if found.version:
            return found
        with open_remote(url) as (_, found):  # a web server that tells no version: its content does
            return found
    return None


def _names_several(source: str) -> bool:
    is_bucket = _scheme(source) in BUCKETS
    return is_bucket and (source.endswith("/") or bool(_WILD.search(source)))


def _scheme(url: str) -> str:
    return url.partition("://")[0]


class Bucket:
    """A bucket, as fsspec reaches it.

    Args:
        url: Of anything in it.

    Raises:
        UsageWrong: An extra is not installed.
    """

    def __init__(self, url: str) -> None:
        self._scheme = _scheme(url)
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
        with self._asking(url):
            self._files: Any = fsspec.filesystem(
                self._scheme, use_listings_cache=False, **_OPTIONS[self._scheme]
            )

    def look(self, url: str) -> FileState:
        """Return the identity of an object.

        Raises:
            NotThere: There is none.
        """
        with self._asking(url):
            info: Mapping[str, Any] = self._files.info(url, timeout=_LOOK_SECONDS)
        if info["type"] != "file":
            raise NotThere(f"{url} is a folder; name its objects: '{url.rstrip('/')}/'.")
        return _state(info)

    def read(self, url: str, begin: int, end: int) -> bytes:
        """Return the bytes of an object from one position to another."""
        with self._asking(url):
            data: bytes = self._files.cat_file(url, start=begin, end=end)
        return data

    def listing(self, source: str, *, has_to_be_there: bool = False) -> dict[str, FileState]:
        """Return the objects that fit a pattern, or lie below a prefix, by URL; sorted.

        Raises:
            NotThere: There is no such bucket, and it has to be there.
        """
        with self._asking(source):
            try:
                if source.endswith("/"):
                    found = self._files.find(source, detail=True)
                    found = {name: one for name, one in found.items() if not _is_hidden(name)}
                else:
                    found = self._files.glob(source, detail=True)
            except FileNotFoundError:
                found = {}
            bucket = "/".join(source.split("/")[:3])
            if not found and has_to_be_there and not self._files.exists(bucket):
                raise FileNotFoundError
        return {
            f"{self._scheme}://{name}": _state(one)
            for name, one in sorted(found.items())
            if one["type"] == "file"
        }

    def has(self, url: str) -> bool:
        """Say whether an object is there."""
        try:
            self.look(url)
        except NotThere:
            return False
        return True

    def put(self, url: str, content: bytes) -> None:
        """Write an object, which appears as a whole; one that is there already stays."""
        try:
            with self._asking(url):
                self._files.pipe_file(url, content, mode="create", timeout=_PUT_SECONDS)
        except _Exists:
            return
        except OperationsMustAct:
            if not self.has(url):
                raise

    @contextmanager
    def _asking(self, url: str) -> Iterator[None]:
        """Turn the exceptions of the clouds' libraries into ours; their texts may hold secrets."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotThere(f"{url}: there is no such object or bucket.") from error
        except FileExistsError as error:
            raise _Exists(f"{url} is there already.") from error
        except PermissionError as error:
            raise UsageWrong(
                f"{url}: access is denied. The credentials of this environment "
                f"({_CREDENTIALS[self._scheme]}) are wrong, or may not do this."
            ) from error
        except Exception as error:  # each cloud's library has its own
            kind = type(error).__name__
            if kind in _NOT_THERE:
                raise NotThere(f"{url}: there is no such object or bucket.") from error
            if kind in _WITHOUT_CREDENTIALS:
                raise UsageWrong(
                    f"{url}: there are no credentials. Set {_CREDENTIALS[self._scheme]}."
                ) from error
            raise _unreachable(url, error) from error


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


def _ask_web(url: str, copy: io.FileIO | None = None) -> FileState:
    """Return the identity of a file on a web server; ask again while the server is away.

    Args:
        url: With https; http only on this machine.
        copy: File that gets the content; None = only size, version and time are asked for.

    Raises:
        UsageWrong: It is not there or is refused, or its URL holds what may be a secret.
        SourceUnavailable: The server stays away.
    """
    parts = httpx.URL(url)
    if parts.query or parts.userinfo or parts.fragment:
        shown = f"{parts.scheme}://{parts.netloc.decode()}{parts.path}"
        raise UsageWrong(
            f"{shown}: a URL with a password or a query may hold a secret, and a job would "
            "keep it. Use `curl -sSf URL | segrelay backfill start -`."
        )
    for wait_seconds in _WAITS_SECONDS:
        with suppress(SourceUnavailable, httpx.HTTPError):
            return _answered(url, copy)
        time.sleep(wait_seconds)
    try:
        return _answered(url, copy)
    except httpx.HTTPError as error:
        raise _unreachable(url, error) from error


def _answered(url: str, copy: io.FileIO | None) -> FileState:
    with (
        httpx.Client(
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [_refuse_clear]},
        ) as client,
        client.stream("GET", url) as answer,
    ):
        match answer.status_code:
            case 200:
                pass
            case 404 | 410:
                raise NotThere(f"{url}: there is no such file.")
            case 408 | 425 | 429 | 500 | 502 | 503 | 504 as status:
                raise SourceUnavailable(f"{url} can't be read now: status {status}.")
            case status:
                raise UsageWrong(
                    f"{url} is refused with status {status}. For a file with a password use "
                    "`curl -nsSf URL | segrelay backfill start -`."
                )
        if copy:
            _keep(url, answer.iter_raw(), copy)
    tag = answer.headers.get("etag", "")
    modified = answer.headers.get("last-modified", "")
    version = modified if tag.startswith("W/") else tag or modified
    size = int(answer.headers.get("content-length", 0))
    if copy and not version:
        version, size = hashlib.file_digest(copy, "sha256").hexdigest(), copy.tell()
        copy.seek(0)
    return FileState(size, version, _http_time_ns(modified))


def _keep(url: str, pieces: Iterator[bytes], copy: io.FileIO) -> None:
    """Write an answer into the copy, over a part of it that an earlier try has left there."""
    try:
        copy.seek(0)
        copy.truncate()
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[copy.write(left) :]
        copy.seek(0)
    except OSError as error:
        raise UsageWrong(
            f"{url} can't be stored in {gettempdir()} ({error.strerror}): let TMPDIR name a folder "
            "with more room."
        ) from error


def _http_time_ns(text: str) -> int:
    try:
        return _nanoseconds(parsedate_to_datetime(text).astimezone(UTC)) if text else 0
    except ValueError:
        return 0


def _refuse_clear(request: httpx.Request) -> None:
    if request.url.scheme != "https" and not is_loopback(request.url.host):
        raise UsageWrong(
            f"http://{request.url.host} would send profiles in the clear; use https://."
        )
