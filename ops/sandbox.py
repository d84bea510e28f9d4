"""`segrelay sandbox`: starts the sandbox, a service of its own, and sets its switches over HTTP.

Nothing of it is imported: it is the process `python -m segrelay.sandbox`. The mark of a sandbox run
is a lock, which ends with `segrelay up --sandbox` however that ends.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import httpx
import orjson
import typer

from segrelay.ops.embedded import locked, prepared, stop, usable
from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.terminal.console import json_or_text, mention, say
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import DestinationName, object_of
from segrelay.ops.terminal.serving import PARENT_VARIABLE, LogFormat, use_log_format
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.printable import read_json_values
from segrelay.worker.contract.redis.connection import connect, resolve_url, wait_ready
from segrelay.worker.contract.redis.scanning import scan_keys
from segrelay.worker.contract.redis.url import ANY_SANDBOX, EmbeddedFiles
from segrelay.worker.contract.settings import (
    DEFAULT_SANDBOX,
    SANDBOX_VARIABLE,
    Settings,
    load_settings,
    sandbox_url,
)
from segrelay.worker.contract.settings.urls import is_loopback
from segrelay.worker.errors import OperationsMustAct, UsageWrong

MODULE: Final = "segrelay.sandbox"
LOOPBACK: Final = "127.0.0.1"
DEFAULT_PORT: Final = urlsplit(DEFAULT_SANDBOX).port or 0

_PATTERNS: Final = (
    ("l*", "string"),  # ledgers
    ("members:*", "hash"),
    ("who", "hash"),
    ("reached", "zset"),
)
"""Patterns and types of a partition's keys that are about people at the sandbox; other keys may
match a pattern, but have another type."""

_REDIS_DATA: Final = "appendonlydir"
_MARK_SECONDS: Final = 1.0
_MARK_AGAIN_SECONDS: Final = 0.02


@contextmanager
def marked_as_sandbox_run(settings: Settings, url: str) -> Iterator[None]:
    """Mark that a sandbox runs, so that no other command takes the real Redis by mistake.

    Raises:
        OperationsMustAct: Another sandbox run is on over it.
    """
    files = prepared(settings.redis.data_dir)
    gives_up_at = time.monotonic() + _MARK_SECONDS  # whoever looks at the lock holds it meanwhile
    while True:
        with locked(files.sandbox_run) as mark:
            if mark is not None:
                os.ftruncate(mark, 0)
                os.pwrite(mark, f"{url}\n".encode(), 0)
                yield
                return
        if time.monotonic() >= gives_up_at:
            raise OperationsMustAct(
                f"A sandbox runs over {files.data_dir} already, with the sandbox"
                f" {files.previewed_at()}: end its `segrelay up --sandbox` first."
            )
        time.sleep(_MARK_AGAIN_SECONDS)


def forget_sandbox_run(settings: Settings) -> bool:
    """End the Redis of a sandbox run that has ended, and delete all that it holds.

    Args:
        settings: The settings of the sandbox run.

    Returns:
        False if there was nothing.

    Raises:
        OperationsMustAct: The sandbox run is on, or something starts its Redis again.
    """
    files = EmbeddedFiles(settings.redis.data_dir.absolute())
    if not files.lock.exists():
        return False
    with marked_as_sandbox_run(settings, ANY_SANDBOX), usable(files):
        stop(files.data_dir)
        with locked(files.lock) as lock:
            if lock is None:
                raise OperationsMustAct(
                    f"Something starts the Redis of {files.data_dir} again and again: end what"
                    " works on the sandbox run first, such as a `segrelay worker`."
                )
            folder = files.data_dir / _REDIS_DATA
            there = folder.is_dir()
            if there:
                shutil.rmtree(folder)
            # Not the lock: one that was deleted would keep nobody out.
            for each in (*files.data_dir.glob("*.rdb"), *files.data_dir.glob(f"{files.log.name}*")):
                each.unlink(missing_ok=True)
            return there


def forget_people(settings: Settings) -> int:
    """Forget the people of an earlier sandbox; waiting deliveries stay, and go to the new one.

    Returns:
        How many ledgers and lists of members there were.
    """
    url = resolve_url(settings.redis)
    wait_ready(url)
    with closing(connect(url)) as client:
        partitions = all_partitions(client, settings)
        return sum(
            sum(ask_each(client, keys, lambda pipe, key: pipe.unlink(key)))
            for pattern, kind in _PATTERNS
            for keys in scan_keys(client, partitions, pattern, kind)
        )


def sandbox(
    ctx: typer.Context = None,  # type: ignore[assignment] # typer gives one
    *,
    port: Annotated[
        int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65_535)
    ] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = LOOPBACK,
    settings: Annotated[
        str,
        typer.Option(
            help='Switches as a JSON object, e.g. {"error_shares": {"500": 0.05}}.',
            show_default=False,
        ),
    ] = "{}",
    sandbox_run: Annotated[bool, typer.Option("--sandbox-run", hidden=True)] = False,
    log_format: LogFormat = None,
) -> None:
    """Run a stand-in for Lytics and all destinations, with switches for all that can go wrong.

    The commands below change a sandbox that runs, also that of `segrelay up --sandbox`.
    """
    if ctx and ctx.invoked_subcommand:
        return
    use_log_format(log_format)
    _tell_who_can_reach(host)
    switches = object_of(settings, "--settings")
    if sandbox_run:
        loaded = load_settings()
        forget_people(loaded)  # also when `up` starts it again after a crash
        # These demand a token of the sandbox's own, which is the OAuth2 server of a sandbox run.
        demanding = [
            name
            for name, one in loaded.destinations.items()
            if one.api == "http" and (auth := loaded.authorization_of(one)) and auth.uses_token
        ]
        switches |= {"token_endpoints": demanding, "accept_anything": True}
    command = own_module(MODULE, "--port", str(port), "--host", host)
    command += ["--settings", orjson.dumps(switches).decode()]
    if os.environ.pop(PARENT_VARIABLE, "") == "1":
        command.append("--until-stdin-ends")
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - signals and the exit status are the sandbox's


def _tell_who_can_reach(host: str) -> None:
    if not is_loopback(host):
        mention(
            f"warning: whoever reaches this machine at {host} can read everything that the sandbox"
            " is sent, with the people's data and the headers' names, and can switch its faults;"
            f" nothing asks for a password. The default, {LOOPBACK}, opens it to this machine only."
        )


app = typer.Typer(invoke_without_command=True)
app.callback(invoke_without_command=True)(sandbox)
people = typer.Typer(no_args_is_help=True)
app.add_typer(people, name="people", help="The people whom the sandbox has as Lytics.")

Url = Annotated[
    str, typer.Option(help="The sandbox.  [default: $SEGRELAY_SANDBOX, or http://127.0.0.1:8900]")
]
_SECONDS: Final = 30.0


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
    say(f"{ask(url, 'lytics/profiles', given)['profiles']} people added")


@app.command("set")
def set_switches(
    switches: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="Switches; values are JSON.")
    ],
    *,
    url: Url = "",
) -> None:
    """Change switches, such as latency_seconds=5, or credentials_status=401 to refuse all keys."""
    named = {name: value for name, _, value in (one.partition("=") for one in switches)}
    unset = [name for name, value in named.items() if not value]
    if unset:
        raise UsageWrong(f"{unset[0]}: write NAME=VALUE, such as latency_seconds=5.")
    ask(url, "settings", {name: json_or_text(value) for name, value in named.items()})
    say(f"changed: {', '.join(named)}")


@app.command()
def requests(
    *,
    destination: DestinationName = "",
    last: Annotated[int, typer.Option(help="How many.", min=1, max=1_000)] = 20,
    url: Url = "",
) -> Result:
    """Show the last requests that came for other destinations than Insider."""
    found = ask(url, "endpoints", last=last, endpoint=destination)
    lines = []
    for one in found["last"]:
        head = f"{one['endpoint']}: {one['method']} {one['path']} -> {one['status']}"
        lines.append(f"{head} {one['problem']}")
        if one["body"] is not None:
            lines.append(f"  {orjson.dumps(one['body']).decode()}")
    return Result(found, *(lines or ["none came"]))


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="An email address.")], *, url: Url = ""
) -> Result:
    """Show a person's profile at the sandbox's Insider."""
    found = ask(url, "profile", email=name)
    return Result(found, orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


@app.command()
def reset() -> None:
    """Forget everything of this folder's sandbox run, which must have ended.

    Its Redis is stopped and emptied; the sandbox itself begins empty each time.
    """
    settings = load_settings(environ={**os.environ, SANDBOX_VARIABLE: DEFAULT_SANDBOX})
    forgot = forget_sandbox_run(settings)
    say("the sandbox run is forgotten" if forgot else "there was nothing to forget")


def ask(url: str, path: str, value: Any = None, **query: Any) -> Any:
    """Return the report below `/_sandbox/`, e.g. `ask("", "summary")`, or the answer to a value.

    Args:
        url: The URL of the sandbox; "" = the one that the environment names, or the default.
        path: The report's name.
        value: The value to post; None = nothing.
        query: Parameters of the URL.

    Raises:
        OperationsMustAct: No sandbox answers there.
        UsageWrong: The sandbox refuses it.
    """
    address = url or sandbox_url(os.environ) or DEFAULT_SANDBOX
    method, content = ("GET", None) if value is None else ("POST", orjson.dumps(value))
    try:
        answer = httpx.request(
            method,
            f"{address}/_sandbox/{path}",
            params=query,
            content=content,
            timeout=_SECONDS,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise OperationsMustAct(
            f"No sandbox answers at {address}: start one with `segrelay up --sandbox` or `segrelay"
            " sandbox`, or name it with --url."
        ) from error
    if answer.is_error:
        raise UsageWrong(f"The sandbox refuses it: {answer.text[:500]}")
    return orjson.loads(answer.content)
