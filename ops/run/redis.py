"""`segrelay redis`: run and inspect the embedded Redis."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Final

import typer

from segrelay.ops.embedded import EmbeddedRedis, ensure_running
from segrelay.ops.embedded import stop as stop_server
from segrelay.ops.state.opened import (
    Asks,
    Why,
    act_of,
    already_there,
    insist,
    load_for_redis,
    perform,
    running_server,
)
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import configured
from segrelay.producer.publishing.published import CapacityMeter
from segrelay.worker.contract.redis.claim import confirm_destination as confirm
from segrelay.worker.contract.redis.claim import forget_losses, read_refused, refusal
from segrelay.worker.contract.redis.connection import connect, wait_ready
from segrelay.worker.contract.redis.url import parse_redis_url
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import UsageWrong

app = typer.Typer(help="Start, find or stop the embedded Redis.")
_STATUS_SECONDS: Final = 1.0


@app.command()
def confirm_destination(
    name: Annotated[str, typer.Argument(help="A destination of the configuration.")],
    *,
    relay: Asks,
) -> Result:
    """Confirm a destination whose new name or new address was refused.

    A process that starts refuses a new name with the address and authorization of a known
    destination that the configuration no longer names, since it may be that destination renamed.
    And it refuses another address or authorization of a known name. This says that the
    configuration is right. Under a new name, the destination begins with nothing; what the other
    one holds stays there. At a new address, it goes on with all that it holds, and processes that
    know the former address send nothing more.
    """
    client, settings = relay.client, relay.settings
    configured("destination", name, settings.destinations)
    known_as = read_refused(client, settings).get(name)
    if known_as:
        relay.confirm(f"{refusal(name, known_as)}. Is {name} right as it is configured?")
        perform(
            client,
            relay.act(name),
            lambda _: confirm(client, settings, name),
            is_counted=False,
        )
    told = f"{name} is confirmed" if known_as else f"{name} was not refused"
    return Result({"name": name, "changed": bool(known_as)}, told)


@app.command()
def start() -> Result:
    """Start the embedded Redis, if it is not running."""
    settings = _embedded()
    server = ensure_running(settings.data_dir)
    verb = "started" if server.started_by_us else "is running already"
    return Result(
        _document(settings, server) | {"started": server.started_by_us},
        f"The embedded Redis {verb}: {_shown(server.url)}, process {server.pid}.",
    )


@app.command()
def stop() -> Result:
    """Stop the embedded Redis; what it holds stays in its data directory."""
    stopped = stop_server(_embedded().data_dir)
    told = "The embedded Redis stopped." if stopped else "The embedded Redis was not running."
    return Result({"stopped": stopped}, told)


@app.command()
def status() -> Result:
    """Say whether Redis can be used; the exit code is 1 if not, or if it is full.

    It starts nothing.
    """
    loaded = load_for_redis()
    url = loaded.redis.url
    if url == EMBEDDED:
        server = running_server(loaded.redis.data_dir)
        url, document = server.url, _document(loaded.redis, server)
        line = f"The embedded Redis runs: {_shown(url)}, process {server.pid}."
    else:
        document = {"embedded": False, "address": _shown(url)}
        line = f"Redis at {_shown(url)} can be used."
    warnings = wait_ready(url, _STATUS_SECONDS, replicas=loaded.redis.replicas)
    with closing(connect(url, timeout_seconds=_STATUS_SECONDS)) as client:
        full = CapacityMeter(client, loaded).memory()
    document |= {"full": bool(full), "warnings": list(warnings)}
    notes = [f"warning: {warning}" for warning in warnings]
    line = full or line
    return Result(document, line, notes=notes, exit_code=int(bool(full)))


@app.command()
def acknowledge(*, why: Why = "") -> Result:
    """Acknowledge that Redis came back empty, so that `status` no longer reports it."""
    with already_there() as (_, client):
        act = act_of("redis acknowledge", reason=why)
        count = insist(lambda: forget_losses(client, act))
    told = "It is acknowledged." if count else "Redis did not come back empty."
    return Result({"acknowledged": count}, told)


def _embedded() -> RedisSettings:
    settings = load_for_redis().redis
    if settings.url != EMBEDDED:
        raise UsageWrong(
            f"redis.url is {_shown(settings.url)}: only the embedded Redis"
            f' (redis.url = "{EMBEDDED}") is started, stopped and shown by this command.'
        )
    return settings


def _document(settings: RedisSettings, server: EmbeddedRedis) -> dict[str, object]:
    return {
        "embedded": True,
        "address": _shown(server.url),
        "pid": server.pid,
        "data_dir": str(settings.data_dir),
    }


def _shown(redis_url: str) -> str:
    return parse_redis_url(redis_url).shown
