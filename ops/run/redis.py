"""`segrelay redis`: run and inspect the embedded Redis, and back Redis up."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer

from segrelay.ops.embedded.backup import back_up
from segrelay.ops.embedded.backup import restore as restore_file
from segrelay.ops.embedded.lifecycle import EmbeddedRedis, ensure_running
from segrelay.ops.embedded.lifecycle import stop as stop_server
from segrelay.ops.moving.commands import confirm_destination
from segrelay.ops.state.acts import EXPORTED_FILE, Acts, Reason, act_of, perform
from segrelay.ops.state.opened import already_there, insist, load_for_redis, running_server
from segrelay.ops.terminal.console import confirmed, progress, say
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import Yes
from segrelay.producer.publishing.writing import CapacityMeter
from segrelay.worker.contract.redis.acts import note_act
from segrelay.worker.contract.redis.connection import connect, wait_ready
from segrelay.worker.contract.redis.instance import forget_losses
from segrelay.worker.contract.redis.url import parse_redis_url
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import UsageWrong

app = typer.Typer(help="Start, find or stop the embedded Redis.")
app.command()(confirm_destination)

_STATUS_SECONDS: Final = 1.0


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
    line = full.message if full else line
    return Result(document, line, notes=notes, exit_code=int(full is not None))


@app.command()
def url() -> None:
    """Print the URL of Redis, with the password, e.g. for `redis-cli -u`."""
    say(running_server(_embedded().data_dir).url)


@app.command()
def acknowledge(*, reason: Reason = "") -> Result:
    """Acknowledge that Redis came back empty, so that `status` no longer reports it."""
    with already_there() as (_, client):
        act = act_of("redis acknowledge", reason=reason)
        count = insist(lambda: forget_losses(client, act))
    told = "It is acknowledged." if count else "Redis did not come back empty."
    return Result({"acknowledged": count}, told)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")], *, relay: Acts
) -> Result:
    """Write all that Redis holds into a file, while everything runs: with people's data.

    It has the state of one moment. Of a Cluster, each master has to be backed up by its own means.
    """
    url = relay.settings.redis.url
    address = parse_redis_url(url) if url != EMBEDDED else None
    if address and address.is_cluster:
        raise UsageWrong(
            f"{address.shown} is a Cluster: back up its masters, at the same time, by the means of"
            " those who run it."
        )
    begun = time.monotonic()
    act = relay.act(**{EXPORTED_FILE: str(file.resolve())})

    def written(_: object) -> int:
        with progress("backup, bytes") as shown:
            return back_up(relay.client, file, shown.advance)

    size = perform(relay.client, act, written, is_counted=False)
    document = {"file": str(file), "bytes": size, "seconds": round(time.monotonic() - begun, 1)}
    return Result(document, f"{file}: {size:,} bytes")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `backup` wrote.")],
    *,
    reason: Reason = "",
    yes: Yes = False,
) -> Result:
    """Start the embedded Redis, which must not run, with what a backup holds.

    What it held before is kept in a folder beside it.
    """
    settings = _embedded()
    confirmed(f"Put what {file} holds into the place of what {settings.data_dir} holds?", yes=yes)
    server, replaced = restore_file(file, settings.data_dir)
    with closing(connect(server.url)) as client:
        note_act(client, act_of("redis restore", reason=reason))
    kept = f"What it held before is in {replaced}." if replaced else "It held nothing before."
    return Result(
        _document(settings, server) | {"replaced": str(replaced) if replaced else None},
        f"The embedded Redis runs with what {file} holds. {kept}",
        "Now start the workers, resume what was paused, and bring back what came after the backup:"
        " docs/production.md, Backup and restore, says how.",
    )


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
