"""Files that lie elsewhere: objects in buckets (S3, Google Cloud, Azure) and on web servers.

A file is read in ranges. Each range has to be of the version that was opened, which its ETag tells;
so rows never come from two versions, and a job knows when it goes on whether the file is the same.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, TypeVar

from segrelay.worker.contract.deferred import deferred
from segrelay.worker.contract.settings.urls import BUCKETS, is_loopback
from segrelay.worker.errors import OperationsMustAct, SourceChanged, SourceUnavailable, UsageWrong

if TYPE_CHECKING:
    import httpx
else:
    httpx = deferred("httpx")

T = TypeVar("T")
RANGE_BYTES: Final = 8 * 1024 * 1024
"""The bytes of one request; as many are held in memory."""
_WAITS_SECONDS: Final = (0.25, 0.5, 1.0, 2.0)
"""The waits between the tries to reach a web server; fsspec's libraries have their own."""
_ANSWER_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 5.0
_WILD: Final = re.compile(r"[*?\[]")
_HIDDEN: Final = ("_", ".")
"""The beginnings of names that writers give to what is no data, such as `_SUCCESS`."""
_TOTAL: Final = re.compile(r"bytes (\d+)-\d+/(\d+)")
_LIBRARIES: Final = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
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


class Found(NamedTuple):
    """The identity of a file's content.

    Attributes:
        version: Its ETag, or what stands for one.
        changed_ns: The time of its last change; 0 = it is not told.
    """

    size: int
    version: str
    changed_ns: int

    def digest(self) -> str:
        """Return the same text for the same content, as far as the version tells."""
        return hashlib.sha256(f"{self.version}|{self.size}".encode()).hexdigest()[:24]


Fetch = Callable[[int, int], bytes]
"""A function that returns the bytes from one position to another.

It raises `SourceChanged` if they are not of the version that was opened.
"""


class RemoteFile(io.RawIOBase):
    """A file that is read in ranges.

    Args:
        name: As a person named it.
        found: Its identity when it was opened.
        fetch: Reads a range.
    """

    def __init__(self, name: str, found: Found, fetch: Fetch) -> None:
        self.found = found
        self._name = name
        self._fetch = fetch
        self._at = 0
        self._begin = 0
        self._range = b""
        self._has_changed = False

    def readable(self) -> bool:
        """Say that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any position can be read."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; nothing is asked for."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.found.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what io hands over
        """Read the next bytes."""
        inside = self._at - self._begin
        if not 0 <= inside < len(self._range):
            self._range, self._begin = self.read_at(self._at, RANGE_BYTES), self._at
            inside = 0
        piece = self._range[inside : inside + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def read_at(self, position: int, count: int) -> bytes:
        """Return the bytes at a position; fewer at the file's end.

        Raises:
            SourceChanged: They are of another version than the one that was opened.
            SourceUnavailable: There is no answer.
        """
        end = min(position + count, self.found.size)
        if position >= end:
            return b""
        try:
            data = self._fetch(position, end)
            if len(data) != end - position:
                raise _changed(self._name)
        except SourceChanged:
            self._has_changed = True
            raise
        return data

    def refuse_change(self) -> None:
        """Raise if a range was not of the version that was opened.

        Raises:
            SourceChanged: One was not.
        """
        if self._has_changed:
            raise _changed(self._name)


def _changed(name: str) -> SourceChanged:
    return SourceChanged(f"{name} was written to, or removed, while it was read.")


def _unreachable(name: str, error: Exception) -> SourceUnavailable:
    return SourceUnavailable(
        f"{name} can't be reached ({type(error).__name__}). Try it again later; a job goes on "
        "where it stopped with `segrelay backfill resume`."
    )


@contextmanager
def open_remote(url: str) -> Iterator[RemoteFile]:
    """Open a file that lies elsewhere.

    Raises:
        UsageWrong: It is not there, may not be read, or an extra is not installed.
        SourceUnavailable: There is no answer.
    """
    with ExitStack() as stack:
        if _scheme(url) in BUCKETS:
            yield Bucket(url).file(url)
        else:
            yield _WebFile(url, stack).file()


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


def list_remote(source: str) -> dict[str, Found]:
    """Return the files that a URL names, with their identities, by URL; there may be none yet.

    Raises:
        UsageWrong: The bucket is not there, or can't be listed; as `open_remote`.
        SourceUnavailable: There is no answer.
    """
    if _names_several(source):
        return Bucket(source).listing(source, has_to_be_there=True)
    found = look_at_remote(source)
    return {source: found} if found else {}


def look_at_remote(url: str) -> Found | None:
    """Return the identity of a file that lies elsewhere; None if it is not there.

    Raises:
        UsageWrong: It may not be read; as `open_remote`.
        SourceUnavailable: There is no answer.
    """
    try:
        with open_remote(url) as file:
            return file.found
    except NotThere:
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
        look_seconds: The time for a look at an object.

    Raises:
        UsageWrong: An extra is not installed.
    """

    def __init__(self, url: str, look_seconds: float = _LOOK_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._scheme = _scheme(url)
        if "@" in url.split("/")[2]:
            raise UsageWrong(
                f"{self._scheme}://: a URL with a password is refused, since a job would keep it. "
                f"Set {_CREDENTIALS[self._scheme]}."
            )
        try:
            import_module(_LIBRARIES[self._scheme])
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

    def file(self, url: str) -> RemoteFile:
        """Return an object, open for reading."""
        opened = self._look(url)

        def fetch(begin: int, end: int) -> bytes:
            try:
                with self._asking(url):
                    data: bytes = self._files.cat_file(url, start=begin, end=end)
                now = self._look(url)
            except NotThere as error:
                raise _changed(url) from error
            # What was read before the look is of the version that the look still finds.
            if now != opened:
                raise _changed(url)
            return data

        return RemoteFile(url, opened, fetch)

    def listing(self, source: str, *, has_to_be_there: bool = False) -> dict[str, Found]:
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
            f"{self._scheme}://{name}": _found(one)
            for name, one in sorted(found.items())
            if one["type"] == "file"
        }

    def has(self, url: str) -> bool:
        """Say whether an object is there."""
        try:
            self._look(url)
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

    def _look(self, url: str) -> Found:
        with self._asking(url):
            info: Mapping[str, Any] = self._files.info(url, timeout=self._look_seconds)
        if info["type"] != "file":
            raise NotThere(f"{url} is a folder; name its objects: '{url.rstrip('/')}/'.")
        return _found(info)

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


def _found(info: Mapping[str, Any]) -> Found:
    version = info.get("ETag") or info.get("etag") or info.get("generation") or ""
    changed = info.get("LastModified") or info.get("last_modified") or info.get("mtime")
    return Found(int(info["size"]), str(version), _nanoseconds(changed))


def _is_hidden(name: str) -> bool:
    return name.endswith("/") or name.rpartition("/")[2].startswith(_HIDDEN)


def _nanoseconds(moment: Any) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000 if isinstance(moment, datetime) else 0


class _Answer(NamedTuple):
    """A web server's answer: the file's identity, and its content.

    Attributes:
        begin: The position of the first byte; -1 = the whole file comes.
    """

    found: Found
    begin: int
    pieces: Iterator[bytes]


class _WebFile:
    """A file on a web server.

    One that does not give ranges is downloaded to a temporary file.

    Args:
        url: With https; http only on this machine.
        stack: Closes what is open.

    Raises:
        UsageWrong: The URL holds what may be a secret.
    """

    def __init__(self, url: str, stack: ExitStack) -> None:
        parts = httpx.URL(url)
        if parts.query or parts.userinfo or parts.fragment:
            shown = f"{parts.scheme}://{parts.netloc.decode()}{parts.path}"
            raise UsageWrong(
                f"{shown}: a URL with a password or a query may hold a secret, and a job would "
                "keep it. Put a password into ~/.netrc; for a signed URL, use "
                "`curl -sSf URL | segrelay backfill start -`."
            )
        self._url = url
        self._stack = stack
        self._client = stack.enter_context(
            httpx.Client(
                timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                follow_redirects=True,
                headers={"Accept-Encoding": "identity"},
                auth=_netrc(),
                event_hooks={"request": [_refuse_clear]},
            )
        )

    def file(self) -> RemoteFile:
        """Return the file, open for reading."""
        opened = self._tried(self._look)
        if opened is None:
            return self._tried(self._downloaded)

        def fetch(begin: int, end: int) -> bytes:
            return self._tried(lambda: self._range(opened, begin, end))

        return RemoteFile(self._url, opened, fetch)

    def _look(self) -> Found | None:
        """Return the file's identity; None if the server does not give ranges of one version."""
        with self._asked({"Range": "bytes=0-0"}) as answer:
            return answer.found if answer.begin == 0 and answer.found.version else None

    def _range(self, opened: Found, begin: int, end: int) -> bytes:
        with self._asked({"Range": f"bytes={begin}-{end - 1}"}) as answer:
            if answer.found != opened or answer.begin != begin:
                raise _changed(self._url)
            return b"".join(answer.pieces)

    def _downloaded(self) -> RemoteFile:
        copy: BinaryIO = self._stack.enter_context(TemporaryFile())  # noqa: SIM115 - the stack closes it
        content = hashlib.sha256()
        with self._asked({}) as answer:
            for piece in answer.pieces:
                copy.write(piece)
                content.update(piece)
        copy.flush()
        version = answer.found.version or content.hexdigest()
        found = answer.found._replace(size=copy.tell(), version=version)
        return RemoteFile(
            self._url, found, lambda begin, end: os.pread(copy.fileno(), end - begin, begin)
        )

    @contextmanager
    def _asked(self, headers: dict[str, str]) -> Iterator[_Answer]:
        with self._client.stream("GET", self._url, headers=headers) as answer:
            match answer.status_code:
                case 200 | 206:
                    yield _answer_of(answer)
                case 416:  # no byte of an empty file can be given
                    yield _Answer(Found(0, "", 0), -1, iter(()))
                case 404 | 410:
                    raise NotThere(f"{self._url}: there is no such file.")
                case 408 | 425 | 429 | 500 | 502 | 503 | 504 as status:
                    raise SourceUnavailable(f"{self._url} can't be read now: status {status}.")
                case status:
                    raise UsageWrong(
                        f"{self._url} is refused with status {status}. A password is read from "
                        "~/.netrc."
                    )

    def _tried(self, ask: Callable[[], T]) -> T:
        """Ask, and ask again while the server is away.

        Raises:
            SourceUnavailable: It stays away.
        """
        for wait_seconds in _WAITS_SECONDS:
            with suppress(SourceUnavailable, httpx.HTTPError):
                return ask()
            time.sleep(wait_seconds)
        try:
            return ask()
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error


def _answer_of(answer: httpx.Response) -> _Answer:
    tag = answer.headers.get("etag", "")
    modified = answer.headers.get("last-modified", "")
    version = modified if tag.startswith("W/") else tag or modified
    ranged = _TOTAL.match(answer.headers.get("content-range", ""))
    is_range = answer.status_code == httpx.codes.PARTIAL_CONTENT and ranged
    size = int(ranged[2]) if is_range and ranged else 0
    begin = int(ranged[1]) if is_range and ranged else -1
    return _Answer(Found(size, version, _http_time_ns(modified)), begin, answer.iter_raw())


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


def _netrc() -> httpx.Auth | None:
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    return httpx.NetRCAuth(str(path)) if path.is_file() else None
