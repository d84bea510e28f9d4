"""Lytics' own API: scans of an audience, single profiles, the collect API, templates.

The facts are those that Lytics published by November 2026. What can succeed later is tried again,
with patience and within limits; what can't is an error that says what to do. The token never
reaches a message.
"""

from __future__ import annotations

import math
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import quote

import orjson

from segrelay.producer.events.payloads import FUTURE_TOLERANCE_US, MICROSECONDS, Payload
from segrelay.worker.contract.connections import why_no_answer
from segrelay.worker.contract.own_processes import deferred
from segrelay.worker.contract.printable import with_known_words
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import LyticsSettings
from segrelay.worker.errors import LyticsRefused, LyticsUnavailable, ScanExpired, UsageWrong

if TYPE_CHECKING:
    import httpx
else:
    httpx = deferred("httpx")

PAGE_ROWS: Final = 100
"""The largest number of rows in a page of a scan."""
TIMEOUT_SECONDS: Final = 30.0
TRIES: Final = 6
LONGEST_WAIT_SECONDS: Final = 60.0
"""The longest wait between two tries, also if `Retry-After` asks for more."""
_FIRST_WAIT_SECONDS: Final = 0.5
_OK: Final = 200
_TOO_MANY: Final = 429
_FIRST_SERVER_ERROR: Final = 500
_NOT_FOUND: Final = "not_found"
_MESSAGE_CHARACTERS: Final = 200
_DATE_SECONDS: Final = 1.0
"""The precision of the header `Date`: whole seconds."""


class Page(NamedTuple):
    """One page of a scan.

    Attributes:
        rows: The profiles, each with `_uid` and `segments`.
        following: The token of the next page; "" = this was the last.
        total: The number of members by Lytics' own count; None where it does not say.
        at: The time of the answer by Lytics' own clock; None where the answer has no date.
        bad: The number of rows that can't be read.
        seconds: The time from the begin of the request to the end of its answer.
        origin: The version of the file that was read; "" where it is no file.
    """

    rows: list[dict[str, Any]]
    following: str
    total: int | None
    at: datetime | None
    bad: int = 0
    seconds: float = 0.0
    origin: str = ""


@cache
def _trusted() -> ssl.SSLContext:
    """Return the trusted certificates, loaded once: each step of a sync has a client of its own."""
    return httpx.create_ssl_context()


class LyticsApi:
    """A client of one account; used in a `with` block, by one thread.

    Args:
        timeout_seconds: The longest wait of one try, for connecting and for each read.
        tries: The most tries of one request, the first included.
        sleep: A function that waits between two tries; for a caller that must not sleep, it raises.

    Raises:
        ConfigurationInvalid: The token is not set.
    """

    def __init__(
        self,
        settings: LyticsSettings,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._account_id = settings.account_id
        self._tries = tries
        self._sleep = sleep
        self._client = httpx.Client(
            base_url=settings.base_url,
            headers={"authorization": settings.token.reveal()},
            timeout=timeout_seconds,
            verify=_trusted(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def scan(self, audience: str, *, fields: Sequence[str] = (), start: str = "") -> Page:
        """Read one page of an audience's members.

        Args:
            audience: The audience's slug or id.
            fields: The fields that rows hold; none = the whole profile.
            start: The token of the page, `following` of the one before; "" begins the scan.

        Raises:
            ScanExpired: The token is no longer valid; the scan has to begin anew.
            LyticsRefused: There is no such audience, or the token may not read it.
            LyticsUnavailable: Lytics did not answer, or not in a form that we know.
        """
        query = {"limit": str(PAGE_ROWS)}
        query |= {"start": start} if start else {}
        query |= {"fields": ",".join(fields)} if fields else {}
        path = f"/api/segment/{quote(audience, safe='')}/scan"
        try:
            answer = self._get(path, query)
        except LyticsRefused as refusal:
            if start and refusal.status in {400, 404, 410}:
                raise ScanExpired(
                    f"Lytics no longer knows where the scan of '{audience}' stood; "
                    "it begins anew with the next run."
                ) from refusal
            raise
        return _page(answer, audience)

    def pages(self, audience: str, *, fields: Sequence[str] = ()) -> Iterator[Page]:
        """Yield all pages of an audience; raises as `scan`."""
        start = ""
        while True:
            page = self.scan(audience, fields=fields, start=start)
            yield page
            start = page.following
            if not start:
                return

    def profile(self, field: str, value: str) -> dict[str, Any] | None:
        """Read one profile; None if there is none, which Lytics answers with 200 too."""
        path = f"/api/entity/user/{quote(field, safe='')}/{quote(value, safe='')}"
        found = _object(self._get(path, {}), "data")
        return None if _NOT_FOUND in found.get("segments", ()) else found

    def collect(self, stream: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Send records to a stream.

        The caller keeps to the limits of a batch: see `response_stream`.
        """
        path = f"/collect/json/{quote(stream, safe='')}"
        self._ask("POST", path, {}, orjson.dumps(records), "application/json")

    def list_templates(self) -> list[dict[str, Any]]:
        """Return the account's templates, without their sources, which Lytics never tells."""
        found = _json(self._get("/v2/template", self._account())).get("data") or []
        return [each for each in found if isinstance(each, dict)]

    def create_template(
        self, name: str, source: str, *, kind: str = "jsonnet", description: str = ""
    ) -> str:
        """Create a template of a kind, `jsonnet` or `js1`; returns its id."""
        query = {"name": name, "type": kind, **self._about_template(description)}
        answer = self._ask("POST", "/v2/template", query, source.encode(), "text/plain")
        return str(_object(answer, "data").get("id", ""))

    def update_template(self, template_id: str, source: str, *, description: str = "") -> None:
        """Replace the source of a template. The documents say POST, the live API takes PUT."""
        path = f"/v2/template/{quote(template_id, safe='')}"
        query = self._about_template(description)
        self._ask("PUT", path, query, source.encode(), "text/plain")

    def test_template(self, template_id: str, request: Mapping[str, Any]) -> Any:
        """Have Lytics render a template; a text instead of a body is its error message.

        Args:
            template_id: The template's id, as `create_template` returned it. Lytics answers 500 for
                a template that was put there without `desired_format`, e.g. in its own pages.
            request: The request, `{job_config, entity, sample_segments}`.
        """
        path = f"/v2/template/{quote(template_id, safe='')}/test"
        answer = self._ask("POST", path, self._account(), orjson.dumps(request), "application/json")
        return _json(answer).get("data")

    def _about_template(self, description: str) -> dict[str, str]:
        return {"description": description, "desired_format": "json", **self._account()}

    def _account(self) -> dict[str, str]:
        return {"account_id": self._account_id} if self._account_id else {}

    def _get(self, path: str, query: Mapping[str, str]) -> httpx.Response:
        return self._ask("GET", path, query, b"", "")

    def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, kind: str
    ) -> httpx.Response:
        """Send a request, and repeat it as often as allowed while it may still succeed."""
        request = self._client.build_request(
            method,
            path,
            params=query,
            content=body or None,
            headers={"content-type": kind} if kind else None,
        )
        problem, wait = "", 0.0
        for number in range(self._tries):
            if number:
                longest = min(LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0**number)
                wait = max(wait, random.uniform(0, longest))  # noqa: S311 - jitter
                try:
                    self._sleep(min(LONGEST_WAIT_SECONDS, wait))
                except LyticsUnavailable as error:
                    raise LyticsUnavailable(f"{error.message} {path}: {problem}.") from None
            try:
                answer = self._client.send(request)
            except httpx.HTTPError as error:
                problem, wait = f"no answer ({why_no_answer(error)})", 0.0
                continue
            if answer.status_code == _OK:
                return answer
            if answer.status_code != _TOO_MANY and answer.status_code < _FIRST_SERVER_ERROR:
                raise _refusal(answer, path)
            problem, wait = f"status {answer.status_code}", _retry_after_seconds(answer)
        raise LyticsUnavailable(
            f"Lytics did not serve {path} after {self._tries} tries: {problem}. "
            "It is tried again with the next run."
        )


def begun_us(page: Page, now_us: int) -> int:
    """Return the earliest time at which a scan may have begun, by Lytics' clock (µs since 1970).

    The rows of an answer may have been read when its request came: whoever left while it was made
    has an exit that is older than its `Date`. The rows of all pages are true as of this time.

    Raises:
        LyticsUnavailable: Lytics does not say, or its clock is wrong.
    """
    if page.at is None:
        raise LyticsUnavailable("Lytics does not tell the time of its answer (header Date).")
    at_us = round(page.at.timestamp() * MICROSECONDS)
    ahead_us = at_us - now_us
    if abs(ahead_us) > FUTURE_TOLERANCE_US:
        raise LyticsUnavailable(
            f"Lytics' clock is {abs(ahead_us) // MICROSECONDS:,} s"
            f" {'ahead of' if ahead_us > 0 else 'behind'} Redis' clock, at most 300 s are"
            " believed: the events of this run would be older or newer than they are."
        )
    return at_us - math.ceil((page.seconds + _DATE_SECONDS) * MICROSECONDS)


PREFIX: Final = "lytics:"
"""The beginning of a source that is the scan of an audience: `lytics:SLUG` instead of a file."""


def audience_of(source: str) -> str:
    """Return the audience that a source scans; "" where it is no scan.

    Raises:
        UsageWrong: It names none.
    """
    if not source.startswith(PREFIX):
        return ""
    audience = source.removeprefix(PREFIX).strip()
    if not audience:
        raise UsageWrong("Name the audience to scan: lytics:SLUG.")
    return audience


def lytics_of(settings: Settings) -> LyticsSettings:
    """Return the settings of Lytics' API.

    Raises:
        UsageWrong: The configuration does not say it.
    """
    if settings.lytics is None:
        raise UsageWrong(f"A scan needs the table [lytics] in {settings.source.name}.")
    return settings.lytics


def look_at(settings: Settings, audience: str, now_us: int) -> tuple[int, int]:
    """Begin a scan; return its earliest time, see `begun_us`, and the number of members.

    The time is in µs since 1970; the number is 0 where Lytics does not say it.

    Raises:
        LyticsRefused: There is no such audience, or the token may not read it.
        LyticsUnavailable: Lytics does not answer, or its clock is wrong.
    """
    with LyticsApi(lytics_of(settings)) as api:
        page = api.scan(audience)
    return begun_us(page, now_us), page.total or 0


def scan_rows(settings: Settings, audience: str) -> Iterator[Payload]:
    """Yield a payload for each member; its line is the number of the row, from 1.

    Raises:
        ScanExpired: Lytics no longer knows where the scan stood.
        LyticsUnavailable: Lytics does not answer.
    """
    number = 0
    with LyticsApi(lytics_of(settings)) as api:
        try:
            for page in api.pages(audience):
                for row in page.rows:
                    number += 1
                    yield Payload(b"", row, number)
        except ScanExpired as error:
            raise ScanExpired(
                f"Lytics gave up the scan of '{audience}' behind row {number:,}. `segrelay "
                "backfill resume` scans again; who was delivered is not delivered twice."
            ) from error


def _page(answer: httpx.Response, audience: str) -> Page:
    body = _json(answer)
    rows = body.get("data")
    following = body.get("_next", "")
    if str(body.get("status")) != str(_OK) or not isinstance(following, str | None):
        raise LyticsUnavailable(f"Lytics answered the scan of '{audience}' in an unknown form.")
    if rows is not None and not isinstance(rows, list):
        raise LyticsUnavailable(f"Lytics answered the scan of '{audience}' without rows.")
    total = body.get("total")
    profiles = [row for row in rows or [] if isinstance(row, dict)]
    return Page(
        rows=profiles,
        following=following or "",
        total=total if isinstance(total, int) and not isinstance(total, bool) else None,
        at=_date(answer),
        bad=len(rows or []) - len(profiles),
        seconds=answer.elapsed.total_seconds(),
    )


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise LyticsUnavailable(f"Lytics answered {answer.url.path} with no JSON object.")
    return body


def _object(answer: httpx.Response, name: str) -> dict[str, Any]:
    found = _json(answer).get(name)
    return found if isinstance(found, dict) else {}


def _refusal(answer: httpx.Response, path: str) -> LyticsRefused:
    status = answer.status_code
    if status in {401, 403}:
        return LyticsRefused(
            f"Lytics refuses the token of [lytics] for {path} (status {status}): "
            "check that it is set, valid, and may read this.",
            status,
        )
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        body = {}
    said = str(body.get("message", ""))[:_MESSAGE_CHARACTERS] if isinstance(body, dict) else ""
    told = f": {with_known_words(said)}" if said else ""
    return LyticsRefused(f"Lytics refuses {path} (status {status}){told}.", status)


def _retry_after_seconds(answer: httpx.Response) -> float:
    text: str = answer.headers.get("retry-after", "").strip()
    return float(text[:6]) if text.isascii() and text.isdecimal() else 0.0


def _date(answer: httpx.Response) -> datetime | None:
    try:
        at = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
