"""The commands of `segrelay sandbox`: they set switches of a running sandbox, or show its state."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import orjson
import typer

from ops.sandbox.command import sandbox
from ops.sandbox.rehearsal import forget_rehearsal
from ops.terminal.console import json_or_text, print_json, say
from ops.terminal.files import read_json, read_json_values
from ops.terminal.options import Json
from worker.contract.settings import load_settings
from worker.contract.settings.sandboxed import DEFAULT_SANDBOX, SANDBOX_VARIABLE, sandbox_url
from worker.contract.settings.values.durations import format_duration, parse_duration
from worker.errors import OperationsMustAct, UsageWrong

app = typer.Typer(invoke_without_command=True)
app.callback(invoke_without_command=True)(sandbox)
people = typer.Typer(no_args_is_help=True)
app.add_typer(people, name="people", help="The people whom the sandbox has as Lytics.")

Url = Annotated[
    str, typer.Option(help="The sandbox.  [default: $SEGRELAY_SANDBOX, or http://127.0.0.1:8900]")
]
_SECONDS: Final = 30.0
_OFF: Final = "0s"
_UNAUTHORIZED: Final = 401


@people.command("add")
def add_people(
    file: Annotated[Path, typer.Argument(help="JSON: a profile on each line, or an array.")],
    *,
    url: Url = "",
) -> None:
    """Give the sandbox people for scans, syncs and backfills.

    Each is an object with `_uid`, `segments` (the slugs of its audiences) and any fields.
    """
    given = read_json_values(file)
    say(f"{_posted(url, 'lytics/profiles', given)['profiles']} people added")


@app.command()
def outage(
    duration: Annotated[str, typer.Argument(help="How long, e.g. 5m; 0s ends it.")],
    *,
    url: Url = "",
) -> None:
    """Answer every request with 503 for a while; nothing of it takes effect."""
    seconds = _seconds(duration)
    _posted(url, "settings", {"outage_until": time.time() + seconds if seconds else 0.0})
    say(f"out for {format_duration(seconds)}" if seconds else "the outage is over")


@app.command("wrong-key")
def wrong_key(
    *,
    off: Annotated[bool, typer.Option("--off", help="Take the credentials again.")] = False,
    url: Url = "",
) -> None:
    """Refuse every request as if its credentials were wrong: the destinations pause."""
    _posted(url, "settings", {"credentials_status": 0 if off else _UNAUTHORIZED})
    say("all credentials are taken" if off else "all credentials are refused")


@app.command()
def slow(
    duration: Annotated[str, typer.Argument(help="How long an answer takes, e.g. 5s; 0s ends it.")],
    *,
    url: Url = "",
) -> None:
    """Delay each answer."""
    _posted(url, "settings", {"latency_seconds": _seconds(duration)})
    say(f"each answer takes {duration}" if duration != _OFF else "answers come at once")


@app.command()
def answer(
    *,
    to: Annotated[str, typer.Option(help="The destination; without it, every one.")] = "",
    method: Annotated[str, typer.Option(help="Only requests with this method.")] = "",
    path: Annotated[str, typer.Option(help="Only requests whose path contains this.")] = "",
    contains: Annotated[str, typer.Option(help="Only bodies that contain this.")] = "",
    status: Annotated[int, typer.Option(help="The status.", min=100, max=599)] = 200,
    body: Annotated[str, typer.Option(help="The body, JSON or text.")] = "",
    times: Annotated[int, typer.Option(help="For this many requests; 0: for all.", min=0)] = 0,
    forget: Annotated[bool, typer.Option("--forget", help="Forget all answers instead.")] = False,
    url: Url = "",
) -> None:
    """Set what destinations other than Insider answer from now on; the newest rule comes first."""
    rules: list[Any] = []
    if not forget:
        rule: dict[str, Any] = {"endpoint": to, "method": method, "path": path}
        rule |= {
            "contains": contains,
            "status": status,
            "body": json_or_text(body or None),
            "times": times,
        }
        rules = [rule, *_got(url, "settings")["answers"]]
    _posted(url, "settings", {"answers": rules})
    say(f"{len(rules)} rules for answers")


@app.command()
def columns(
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON: { name: type } of the custom attributes; without it, anything."),
    ] = None,
    *,
    url: Url = "",
) -> None:
    """Define the custom attributes of Insider's panel; others are dropped, as at Insider."""
    if file is None:
        _posted(url, "settings", {"accept_anything": True})
        say("every attribute is taken")
        return
    known = read_json(file)
    if not isinstance(known, dict):
        raise UsageWrong(f"{file}: an object of names and types is needed.")
    _posted(url, "settings", {"panel_attributes": known, "accept_anything": False})
    say(f"{len(known)} attributes are defined, and no others are taken")


@app.command()
def requests(
    *,
    to: Annotated[str, typer.Option(help="Only of this destination.")] = "",
    last: Annotated[int, typer.Option(help="How many.", min=1, max=1_000)] = 20,
    json: Json = False,
    url: Url = "",
) -> None:
    """Show the last requests that came for other destinations than Insider."""
    found = _got(url, "endpoints", last=last, endpoint=to)
    if json:
        print_json(found)
        return
    for one in found["last"]:
        say(f"{one['endpoint']}: {one['method']} {one['path']} -> {one['status']} {one['problem']}")
        if one["body"] is not None:
            say(f"  {orjson.dumps(one['body']).decode()}")
    if not found["last"]:
        say("none came")


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="An email address.")], *, url: Url = ""
) -> None:
    """Show a person's profile at the sandbox's Insider."""
    print_json(_got(url, "profile", email=name))


@app.command()
def reset() -> None:
    """Forget everything of this folder's rehearsal, which must have ended.

    Its Redis is stopped and emptied; the sandbox itself begins empty each time.
    """
    settings = load_settings(environ={**os.environ, SANDBOX_VARIABLE: DEFAULT_SANDBOX})
    forgot = forget_rehearsal(settings)
    say("the rehearsal is forgotten" if forgot else "there was nothing to forget")


def _seconds(duration: str) -> float:
    try:
        return parse_duration(duration)
    except ValueError as error:
        raise UsageWrong(f'{error}; write it as "5s" or "5m".') from None


def _posted(url: str, path: str, value: Any) -> Any:
    return _asked("POST", url, path, content=orjson.dumps(value))


def _got(url: str, path: str, **query: Any) -> Any:
    return _asked("GET", url, path, params=query)


def _asked(method: str, url: str, path: str, **more: Any) -> Any:
    place = url or sandbox_url(os.environ) or DEFAULT_SANDBOX
    try:
        answer = httpx.request(
            method, f"{place}/_sandbox/{path}", timeout=_SECONDS, trust_env=False, **more
        )
    except httpx.HTTPError as error:
        raise OperationsMustAct(
            f"No sandbox answers at {place}: start one with `segrelay up --sandbox` or `segrelay"
            " sandbox`, or name it with --url."
        ) from error
    if answer.is_error:
        raise UsageWrong(f"The sandbox refuses it: {answer.text[:500]}")
    return orjson.loads(answer.content)
