"""`segrelay init` and `config`: a first configuration, its checks, and what is in effect."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import typer

from segrelay.ops.state.opened import running_server
from segrelay.ops.terminal.console import mention, say
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import Strict
from segrelay.worker.adapters.redis.shared_keys import read_identified
from segrelay.worker.adapters.sender import Granted, HttpSender, read_grant, token_request
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.claim import mismatches
from segrelay.worker.contract.redis.connection import connect, wait_ready
from segrelay.worker.contract.settings import (
    SANDBOX_VARIABLE,
    Authorization,
    Settings,
    load_settings,
)
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import (
    ConfigurationInvalid,
    OperationsMustAct,
    SegrelayError,
    UsageWrong,
)

app = typer.Typer(help="Check or show the configuration.")


@app.command()
def check(
    *,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Also ask Insider whether the credentials and attributes are right, and get a"
            " token of each OAuth2 authorization.",
        ),
    ] = False,
    strict: Strict = False,
) -> Result:
    """Find everything that is wrong with the configuration.

    Each trigger's template is rendered with a sample, the result is held against its path, and the
    triggers are compared with each other. Problems keep everything from starting: the exit code is
    2. Warnings name what does not work as it is, or is probably not meant: with --strict the exit
    code is 2 for them as well. If Redis answers, it is asked whether it is in use with another
    identity or number of partitions, and whether a destination has only another name than before.
    """
    from segrelay.ops.insider import check_live  # noqa: PLC0415 - `show` needs no engine
    from segrelay.worker.checks import triggers  # noqa: PLC0415 - nor this

    now = datetime.now(UTC)
    report: dict[str, list[str]] = {"problems": [], "warnings": [], "notes": []}
    problems, warned = report["problems"], report["warnings"]

    def add(location: str, severity: str, message: str) -> None:
        lines = problems if severity == "error" else warned
        lines.append(f"{settings.source.name}: {location.rstrip('.')}: {message}")

    try:
        settings = load_settings()
    except ConfigurationInvalid as error:
        problems += error.message.splitlines()
    else:
        warned += settings.warnings
        for finding in triggers.check_triggers(settings, now):
            add(f"triggers.{finding.trigger}", finding.severity, finding.message)
    if not problems:
        identified = look_at_redis(settings, report)
        for finding in triggers.check_without_ids(settings, identified, now):
            add(f"triggers.{finding.trigger}", "warning", finding.message)
    if live and not problems:
        for location, message in check_tokens(settings):
            add(location, "error", message)
        for one in check_live(settings):
            add(one.location, one.severity, one.message)
    warnings = [f"warning: {warning}" for warning in warned]
    for line in (*problems, *warnings, *report["notes"]):
        mention(line)
    told = "The configuration is right."
    if problems:
        told = f"{plural(len(problems), 'problem')}."
    elif warnings:
        shown = f"see the {plural(len(warnings), 'warning')} above before you rely on it"
        told = f"The configuration can be loaded; {shown}."
    is_valid, is_right = not problems, not (problems or warnings)
    return Result(
        {"valid": is_valid} | report | {"right": is_right},
        *([told] if is_valid else []),
        notes=[] if is_valid else [told],
        exit_code=0 if (is_right if strict else is_valid) else ConfigurationInvalid.exit_code,
    )


@app.command()
def show() -> Result:
    """Show the configuration that is in effect.

    That is the file, its defaults and the environment. Secrets show as `set` or `unset`.
    """
    document = load_settings().model_dump(mode="json", by_alias=True)
    lines = (f"{location} = {value}" for location, value in _leaves(document, ""))
    return Result(document, *lines)


def _leaves(value: Any, location: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{location}.{key}" if location else key)
    elif isinstance(value, list) and value:
        yield location, ", ".join(str(one) for one in value)
    else:
        yield location, "-" if value in ({}, [], "", None) else value


_SCAFFOLD: Final = {
    "segrelay.toml": "segrelay.toml",
    ".env.example": "env.example",
    ".gitignore": "gitignore",
}
"""The name of each file to write → its name in the package, where no name begins with a dot."""

_PRIVATE: Final = 0o600
"""The mode of `.env.example`: a copy of it will hold secrets, and keeps this mode."""
_READABLE: Final = 0o666
_TEMPLATES: Final = ("http", "insider")
_EXAMPLE_AUDIENCE: Final = "vip"
_SLUG: Final = re.compile(r"[A-Za-z0-9_-]+")
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder; it is made if it is not there.")
    ],
    *,
    audience: Annotated[
        str, typer.Option(help="The slug of your first audience at Lytics.", metavar="SLUG")
    ] = _EXAMPLE_AUDIENCE,
    compose: Annotated[
        bool,
        typer.Option(
            "--compose",
            help="Also write a docker-compose.yml that runs Redis, a worker and the receiver.",
        ),
    ] = False,
    api: Annotated[
        Literal["insider", "http"],
        typer.Option(help="Deliver to Insider, or to any other endpoint that takes JSON."),
    ] = "insider",
) -> None:
    """Write segrelay.toml with comments, .env.example, .gitignore, templates and samples.

    Nothing that is there already is overwritten. What it prints last tries all of it without a
    credential: `segrelay up --sandbox` delivers to a stand-in.
    """
    if not _SLUG.fullmatch(audience):
        raise UsageWrong(f"--audience {audience}: a slug has letters, digits, _ and - only.")
    if folder.exists() and not folder.is_dir():
        raise UsageWrong(f"{folder} is a file; name a folder.")
    source = _source() if compose else None
    for path, content in _files(audience, api, source):
        mode = _PRIVATE if path.name.startswith(".env") else _READABLE
        say(f"{_write(folder / path, content, mode)} {folder / path}")
    location = shlex.quote(str(folder))
    say("Next, a run in the sandbox, which needs no credentials and touches nothing real:")
    say(f"  cd {location} && segrelay up --sandbox")
    say("and meanwhile in another terminal:")
    say(f"  cd {location} && export {SANDBOX_VARIABLE}=1")
    say("  segrelay send samples/enter.json --wait && segrelay why ann@example.com")
    say("Then the real thing, with the credentials filled into .env in between:")
    say(f"  cd {location} && cp .env.example .env && segrelay config check")
    if compose:
        image = "" if source else ", and SEGRELAY_IMAGE, which names an image of yours"
        say(f"or in containers, once .env has the two secrets that begin it{image}:")
        say(f"  cd {location} && docker compose up")


def _files(audience: str, api: str, source: str | None) -> Iterator[tuple[Path, bytes]]:
    """Yield the files to write.

    Args:
        audience: The audience's slug.
        api: The API of the destination.
        source: The folder that an image is built from; "" = there is none, None = no containers.
    """
    from segrelay.worker.checks.preview import fresh_sample  # noqa: PLC0415 - as above

    scaffold = files("segrelay.ops.config") / "scaffold"
    texts = {name: (scaffold / packaged).read_text("utf-8") for name, packaged in _SCAFFOLD.items()}
    if api == "http":
        begun, _, rest = texts["segrelay.toml"].partition(_TABLES_OF_INSIDER)
        others = rest[rest.index(_TABLES_OF_OTHERS) :]
        texts["segrelay.toml"] = begun + (scaffold / "http.toml").read_text("utf-8") + others
    if source is not None:
        begun, build, rest = (scaffold / _COMPOSE).read_text("utf-8").partition("  build:\n")
        if not source:
            begun, build, rest = _BUILDING.sub("", begun), "", rest[rest.index("  user:") :]
        texts[_COMPOSE] = begun + build + rest.replace(_SOURCE, source)
        for name, old, new in _FOR_CONTAINERS:
            texts[name] = texts[name].replace(old, new)
        texts[".env.example"] = _NEEDED + texts[".env.example"]
    now = datetime.now(UTC)
    for direction in (Direction.ENTER, Direction.EXIT):
        texts[f"samples/{direction.value}.json"] = fresh_sample(direction, now)
    for name, text in texts.items():
        yield Path(name), _about(audience, text).encode()
    for folder in _TEMPLATES:
        for template in sorted((files("segrelay.templates") / folder).iterdir(), key=str):
            if template.name.endswith(".jsonnet"):
                yield Path("templates", folder, template.name), template.read_bytes()


_TABLES_OF_INSIDER: Final = "# What is sent along with every request."
_TABLES_OF_OTHERS: Final = "# A destination of another kind:"
_COMPOSE: Final = "docker-compose.yml"
_SOURCE: Final = "/path/to/segrelay"
_BUILDING: Final = re.compile(r"#   SEGRELAY_(?:SOURCE|EXTRAS) .*\n#    .*\n")
"""The comments about variables that only the building of an image reads."""
_DOCKERFILE: Final = "ops/docker/Dockerfile"
_FOR_CONTAINERS: Final = (
    ("segrelay.toml", "# [producer.webhook]\n", "[producer.webhook]\n"),
    ("segrelay.toml", '# secret = "env:SEGRELAY_WEBHOOK', 'secret = "env:SEGRELAY_WEBHOOK'),
    (".env.example", "SEGRELAY_WEBHOOK_SECRET=\n", ""),
    (".env.example", "# SEGRELAY_REDIS_PASSWORD=\n", ""),
)
"""Changes of files for containers: the receiver is configured, its secret stands in `_NEEDED`."""
_NEEDED: Final = """\
# What containers don't start without: letters and digits, e.g. what `openssl rand -hex 24` prints;
# for Redis, and for Lytics to send along to the webhook. SEGRELAY_USER may read this folder: what
# `id -u` and `id -g` say.
SEGRELAY_REDIS_PASSWORD=
SEGRELAY_WEBHOOK_SECRET=
SEGRELAY_USER=1000:1000

"""


def _source() -> str:
    """Return the folder of segrelay's source if it was installed from there, else ""."""
    told = json.loads(distribution("segrelay").read_text("direct_url.json") or "{}")
    folder = unquote(told.get("url", "").removeprefix("file://"))
    return folder if Path(folder, _DOCKERFILE).is_file() else ""


def _about(audience: str, text: str) -> str:
    """Return a scaffold's file for another audience than its own."""
    name = _NOT_IN_NAMES.sub("-", audience.lower()).strip("-") or _EXAMPLE_AUDIENCE
    named = text.replace(f"triggers.{_EXAMPLE_AUDIENCE}-", f"triggers.{name}-")
    return named.replace(f'"{_EXAMPLE_AUDIENCE}"', f'"{audience}"')


def _write(path: Path, content: bytes, mode: int) -> str:
    """Write a file unless it exists; return `written` or `kept` for the list that is printed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
    except FileExistsError:
        return "kept   "
    return "written"


_PATIENCE_SECONDS: Final = 2.0


def look_at_redis(settings: Settings, report: Mapping[str, list[str]]) -> Collection[str]:
    """Add findings about Redis to a report; one that is silent for two seconds is left out.

    Args:
        settings: The configuration.
        report: The lists of lines by name: `problems`, `warnings` and `notes`.

    Returns:
        Slugs of audiences whose id it knows, and these ids.
    """
    try:
        url = settings.redis.url
        if url == EMBEDDED:
            url = running_server(settings.redis.data_dir).url
        wait_ready(url, _PATIENCE_SECONDS)
        with closing(connect(url, timeout_seconds=_PATIENCE_SECONDS)) as client:
            report["problems"].extend(mismatches(client, settings))
            return read_identified(client)
    except OperationsMustAct as error:
        report["notes"].append(f"Redis was not asked: {error.message}")
        return ()


def check_tokens(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield location and message of each authorization that gets no token; none is kept."""
    for name, authorization in settings.authorizations.items():
        if authorization.uses_token:
            asked = _why_no_token(authorization, ipv4_only=settings.delivery.ipv4_only)
            if message := asyncio.run(asked):
                yield f"authorizations.{name}", message


async def _why_no_token(authorization: Authorization, *, ipv4_only: bool) -> str:
    sender = HttpSender(ipv4_only=ipv4_only)
    try:
        answer = await sender.send(token_request(authorization), 10.0)
    except SegrelayError as error:
        return error.message
    finally:
        await sender.close()
    got = read_grant(answer, authorization)
    return "" if isinstance(got, Granted) else str(getattr(got, "message", got))
