"""The console's server: who may see which page, the headers of every answer, and its addresses.

A handler runs in a thread, never on the event loop: it may ask Redis. What it returns is a `Page`,
a redirection or a refusal, and this module makes an answer of it.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, quote, urlencode

import orjson
import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from segrelay.ops.console.acts import StartedCommands, act_named
from segrelay.ops.console.look import Look
from segrelay.ops.console.rights import Person, Rights, Sessions
from segrelay.ops.state.opened import LONGEST_REASON, actor_named, masked
from segrelay.ops.status.problems import in_short
from segrelay.ops.terminal.moments import shown_ms
from segrelay.worker.contract.printable import LAYOUT, MASK, printable
from segrelay.worker.contract.redis.acts import Act, note_act
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import RedisUnavailable, SegrelayError, UsageWrong

LOG: Final = structlog.get_logger()
HERE: Final = Path(__file__).parent
LIVE_SECONDS: Final = 2
_MOST_FORM_BYTES: Final = 512 * 1024
_MOST_FIELDS: Final = 1_000
_FORM_SECONDS: Final = 8.0
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_TLS_ONLY: Final = "max-age=31536000"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a page.

    Args:
        path: The parameters in the path of the address, by name.
        query: The parameters of the address, each with all its values.
        form: The fields that were posted; none for a GET.
    """

    person: Person
    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_post: bool = False

    def get(self, name: str, default: str = "") -> str:
        return (self.query.get(name) or [default])[0].strip()

    def given(self, name: str) -> str:
        return (self.form.get(name) or [""])[0]


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its template, the values in it, and its title without personal data."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    live_seconds: int = 0


Handler = Callable[["Console", Asked], Page | str]
"""Returns a page, or the address of another page of the console."""


def note_reveal(console: Console, asked: Asked, subject: str) -> None:
    """Record that a person sees personal data.

    Raises:
        UsageWrong: They may not, or say no reason.
        RedisUnavailable: It could not be recorded, so nothing is shown.
    """
    if not asked.person.reveals:
        raise UsageWrong("Personal data is shown to the role revealer only.")
    reason = asked.given("reason").strip()
    if not reason:
        raise UsageWrong("Give a reason: the audit keeps it.")
    act = Act(
        "reveal",
        actor_named(asked.person.name),
        subject,
        reason=masked(reason)[:LONGEST_REASON],
        key=secrets.token_hex(8),
    )
    note_act(console.look.client, act)


class PageRoute(NamedTuple):
    """An address of the console, with its handler.

    Args:
        title: The title in the menu; "" = it is not there.
        key: The letter that opens it after `g`.
    """

    path: str
    handler: Handler
    title: str = ""
    key: str = ""
    takes_posts: bool = False


PAGE: Final = 100
"""The rows of a table that one page shows; the script sorts them."""
_MOST_PAGES: Final = 1_000


def listed(asked: Asked, rows: Sequence[Any]) -> dict[str, Any]:
    """Return the part of a table that the address asks for, as values of a page."""
    text = asked.get("page")
    page = max(1, min(_MOST_PAGES, int(text))) if text.isascii() and text.isdigit() else 1
    return {
        "rows": rows[PAGE * (page - 1) : PAGE * page],
        "count": len(rows),
        "page": page,
        "has_more": len(rows) > PAGE * page,
    }


@dataclass(frozen=True)
class Console:
    """The parts that all pages share."""

    look: Look
    rights: Rights
    menu: Sequence[PageRoute]
    started: StartedCommands

    @cached_property
    def _environment(self) -> Environment:
        return _environment(self.rights.prefix)

    @property
    def settings(self) -> Settings:
        return self.look.settings

    def render(self, page: Page, person: Person | None, path: str) -> str:
        """Return the HTML of a page."""
        is_sandbox_run = any("this is a sandbox run" in each for each in self.settings.warnings)
        return self._environment.get_template(page.template).render(
            {
                "title": page.title,
                "person": person or Person(roles=frozenset()),
                "is_signed_in": person is not None,
                "menu": self.menu,
                "path": path,
                "section": self.rights.section,
                "rights": self.rights,
                "is_sandbox_run": is_sandbox_run,
                "live_seconds": page.live_seconds,
                "now_ms": int(time.time() * 1_000),
                "judged": self.look.judged()
                if person and page.status < HTTPStatus.BAD_REQUEST
                else None,
                **page.values,
            }
        )

    @property
    def live_seconds(self) -> int:
        """Return the seconds after which there is a newer state to fetch."""
        return max(LIVE_SECONDS, math.ceil(self.look.fresh_seconds))


def _environment(prefix: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "html"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["may"] = lambda person, command: (
        person.acts or (bool(person.name) and act_named(command).has_dry_run)
    )
    environment.globals["url"] = lambda path, **query: address_of(prefix + path, query)
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["moment"] = moment
    environment.filters["instant"] = instant
    environment.filters["pretty"] = pretty
    return environment


_OWN: Final = re.compile(r"/(?![/\\])[^\\\s]*")


def own_address(text: str) -> str:
    """Return an address of this console; another one becomes the first page."""
    return text if _OWN.fullmatch(text) else "/"


def address_of(path: str, query: Mapping[str, Any]) -> str:
    """Return an address with a query; empty values are left out."""
    given = [
        (name, str(one))
        for name, value in query.items()
        for one in (value if isinstance(value, list | tuple) else [value])
        if one not in ("", None, 0, False)
    ]
    return quote(path, safe="/%:@!$&'()*+,;=-._~") + (f"?{urlencode(given)}" if given else "")


def _safe(value: Any) -> Any:
    """Write control characters as escapes: no text can turn the direction of others around."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value, keep=LAYOUT)
    return value


def moment(at_ms: int | None) -> Markup:
    """Return a moment as HTML; the script shows it in the reader's zone, and UTC on hover."""
    return Markup(instant(shown_ms(at_ms) if at_ms else None))  # noqa: S704 - escaped


def instant(text: str | None) -> Markup | str:
    """Return a moment in RFC 3339 as HTML, as `moment` does; other text as it is."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return text or "-"
    if at.tzinfo is None:
        return text or "-"
    shown = at.astimezone(UTC).isoformat(" ", "seconds").replace("+00:00", " UTC")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(text, shown)


def pretty(value: Any) -> str:
    """Return a value as indented JSON, with its keys in order."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    return orjson.dumps(value, option=options, default=str).decode()


def build_app(console: Console, pages: Iterable[PageRoute]) -> Starlette:
    """Return the application; all addresses stand below the prefix."""
    site = _Site(console)
    routes = [
        Mount("/static", StaticFiles(directory=HERE / "static")),
        Route("/healthz", site.healthz),
        Route("/login", site.login, methods=["GET", "POST"]),
        Route("/logout", site.logout, methods=["POST"]),
        *(
            Route(
                page.path,
                site.page(page.handler),
                methods=["GET", "POST"] if page.takes_posts else ["GET"],
            )
            for page in pages
        ),
    ]
    return Starlette(
        routes=routes,
        exception_handlers=dict.fromkeys((HTTPException, SegrelayError, Exception), site.refusal),
    )


class Guard:
    """Refuses requests for other hosts, takes the prefix off, and adds headers to all answers."""

    def __init__(self, app: Any, rights: Rights) -> None:
        self._app = app
        self._rights = rights
        own = HEADERS | ({"Strict-Transport-Security": _TLS_ONLY} if rights.is_secure else {})
        self._own = {name.lower().encode(): text.encode() for name, text in own.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        prefix = self._rights.prefix
        path = scope["path"]
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            scope = {**scope, "path": path[len(prefix) :] or "/"}
            scope["raw_path"] = scope["path"].encode()

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                is_page = message["status"] >= HTTPStatus.BAD_REQUEST or not scope[
                    "path"
                ].startswith("/static/")
                own = self._own | ({} if is_page else {b"cache-control": b"private, max-age=300"})
                kept = [pair for pair in message["headers"] if pair[0] not in own]
                message = {**message, "headers": [*kept, *own.items()]}
            await send(message)

        # Of two hosts, whoever stands before the console may have believed the other.
        if len(hosts) > 1 or not self._rights.is_our_host(b"".join(hosts).decode("latin-1")):
            refused = PlainTextResponse(
                "This host is not the console's: set console.public_url.\n", 421
            )
            await refused(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


class _Site:
    """The handlers of all requests."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rights = console.rights
        self._sessions = Sessions(console.look.client)

    def page(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a page."""

        async def endpoint(request: Request) -> Response:
            person = await run_in_threadpool(self._person, request)
            if person is None:
                return self._to_login(request)
            is_post, query = request.method == "POST", _fields(request.url.query)
            if is_post:
                _refuse(self._rights.refuse_origin(request.headers))
            else:
                _refuse(self._rights.refuse_link(request.headers, query))
            form = await self._form_of(request) if is_post else {}
            asked = Asked(person, request.path_params, query, form, is_post)
            return await run_in_threadpool(self._answer, handler, asked, request.scope["path"])

        return endpoint

    def _answer(self, handler: Handler, asked: Asked, path: str) -> Response:
        found = handler(self._console, asked)
        return self._html(found, asked.person, path) if isinstance(found, Page) else self._to(found)

    def _html(self, page: Page, person: Person | None, path: str) -> Response:
        text = self._console.render(page, person, path)
        return Response(text, page.status, media_type="text/html; charset=utf-8")

    def _to(self, address: str) -> Response:
        return RedirectResponse(self._rights.prefix + address, 303)

    def _client_of(self, request: Request) -> str:
        return self._rights.client(_peer(request), request.headers)

    def _named(self, request: Request) -> Person | None:
        return self._rights.person(_peer(request), request.headers, request.cookies)

    def _person(self, request: Request) -> Person | None:
        """Return the person of a request, if their session was not ended; it asks Redis."""
        found = self._named(request)
        is_over = (
            found and found.epoch is not None and found.epoch != self._sessions.epoch(found.name)
        )
        return None if is_over else found

    async def _form_of(self, request: Request) -> Mapping[str, Sequence[str]]:
        """Return the fields of a posted form; too large a one has none.

        Raises:
            HTTPException: It does not come whole, or not in time; the log has one line of it.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(_FORM_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > _MOST_FORM_BYTES:
                        return {}
        except (ClientDisconnect, TimeoutError):
            address, told = self._client_of(request), "a form did not come whole"
            LOG.warning("console.form_broken_off", message=told, address=address)
            raise HTTPException(408, "This took too long.", {"Connection": "close"}) from None
        return _fields(body.decode(errors="replace"))

    def _to_login(self, request: Request) -> Response:
        if not self._rights.has_passwords:
            _refuse("Nobody has signed in, and the proxy names nobody.")
        if request.method != "GET":
            _refuse("The session has ended: sign in again.")
        query = f"?{request.url.query}" if request.url.query else ""
        return self._to(address_of("/login", {"next": request.scope["path"] + query}))

    async def login(self, request: Request) -> Response:
        """Show the form to sign in, or sign in."""
        after = own_address((_fields(request.url.query).get("next") or ["/"])[0])
        if request.method == "GET":
            return self._login_page(after)
        _refuse(self._rights.refuse_origin(request.headers))
        form = await self._form_of(request)
        name, password = ((form.get(each) or [""])[0] for each in ("name", "password"))
        cookie, wait_seconds = await run_in_threadpool(
            self._sign_in, name, password, self._client_of(request)
        )
        if wait_seconds:
            told = f"Too many tries: wait {in_short(wait_seconds)}."
            page = self._login_page(after, told, 429)
            page.headers["Retry-After"] = f"{wait_seconds:.0f}"
            return page
        if not cookie:
            return self._login_page(after, "Name or password is wrong.", 403)
        answer = self._to(after)
        self._set_cookie(answer, cookie, round(self._rights.section.session_seconds))
        return answer

    def _sign_in(self, name: str, password: str, address: str) -> tuple[str, float]:
        """Return the cookie of a new session, or the seconds until the next try is taken.

        Raises:
            RedisUnavailable: It can't be recorded, so nobody signs in.
        """
        wait_seconds = self._sessions.count_try(address, name)
        cookie = "" if wait_seconds else self._rights.sign_in(name, password, self._sessions.begin)
        if cookie:
            self._sessions.forget_tries(address, name)
            self._note("sign in", name, address, key=secrets.token_hex(8))
        else:
            # A flood of them must not push other acts out: one an hour for a name, and one for all
            # names that nobody has.
            shown = name if name in self._rights.section.users else MASK
            self._note("sign in refused", shown, address, key=f"{shown} {time.time() // 3_600}")
        return cookie, wait_seconds

    def _note(self, what: str, name: str, address: str, key: str) -> None:
        """Tell the log, and keep an act in the audit unless there is one with this key."""
        by = actor_named(name)
        tell = LOG.warning if what.endswith("refused") else LOG.info
        tell("console.session", message=what, by=by, address=address)
        note_act(self._console.look.client, Act(what, by, arguments={"address": address}, key=key))

    def _login_page(self, after: str, wrong: str = "", status: int = 200) -> Response:
        page = Page("login.html", "Sign in", {"after": after, "wrong": wrong}, status)
        return self._html(page, None, "/login")

    async def logout(self, request: Request) -> Response:
        """End the sessions of this person."""
        _refuse(self._rights.refuse_origin(request.headers))
        await run_in_threadpool(self._sign_out, request)
        answer = self._to("/login")
        self._set_cookie(answer, "", 0)
        return answer

    def _sign_out(self, request: Request) -> None:
        person = self._person(request)
        if person and person.epoch is not None:
            self._note("sign out", person.name, self._client_of(request), secrets.token_hex(8))
            self._sessions.end(person.name)

    def _set_cookie(self, answer: Response, value: str, seconds: int) -> None:
        answer.set_cookie(
            self._rights.cookie,
            value,
            max_age=seconds,
            path=self._rights.prefix or "/",
            secure=self._rights.is_secure,
            httponly=True,
            samesite="strict",
        )

    async def healthz(self, request: Request) -> Response:
        del request
        return PlainTextResponse("ok\n")

    async def refusal(self, request: Request, error: Exception) -> Response:
        """Answer with a page that says why nothing is shown or done."""
        status, message = 500, "This page failed: see the console's log."
        match error:
            case HTTPException(status_code=404 | 405):
                status, message = 404, "There is no such page."
            case HTTPException():
                status, message = error.status_code, error.detail
            case RedisUnavailable():
                status, message = 503, error.message
            case UsageWrong():
                status, message = 403 if request.method == "POST" else 404, error.message
            case SegrelayError():
                status, message = 409, error.message
            case _:
                LOG.error("console.failed", message="a page could not be made", exc_info=error)
        live = 3 if status == HTTPStatus.SERVICE_UNAVAILABLE else 0  # Redis comes back
        values = {"message": message, "status": status}
        page = Page("refusal.html", _TITLES.get(status, "Not possible"), values, status, live)
        answer = self._html(page, self._named(request), request.scope["path"])
        answer.headers.update(getattr(error, "headers", None) or {})
        return answer


_TITLES: Final = {403: "Not done", 404: "Not found", 409: "Not now", 503: "Redis can't be reached"}


def _refuse(why: str) -> None:
    """Answer a request with this reason; "" = there is none."""
    if why:
        raise HTTPException(403, why)


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


def _fields(text: str) -> Mapping[str, Sequence[str]]:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}
