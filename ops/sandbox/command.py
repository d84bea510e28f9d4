"""`segrelay sandbox`: runs the stand-in for Insider, Lytics and all other destinations."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from ops.sandbox.rehearsal import endpoints_of, forget_people
from ops.sandbox.server import LOOPBACK, serve
from ops.sandbox.settings import SandboxSettings
from ops.terminal.console import mention
from ops.terminal.interrupts import end_with_parent
from ops.terminal.options import object_of
from ops.terminal.serving import LogFormat, use_log_format
from worker import logs
from worker.contract.settings import load_settings
from worker.contract.settings.values.urls import is_loopback
from worker.errors import SegrelayError, UsageWrong

DEFAULT_PORT: Final = 8900


def sandbox(
    ctx: typer.Context = None,  # type: ignore[assignment] # typer gives one
    *,
    port: Annotated[
        int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65_535)
    ] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = LOOPBACK,
    latency: Annotated[float | None, typer.Option(help="How many seconds a request takes.")] = None,
    jitter: Annotated[
        float | None, typer.Option(help="Add up to this many seconds, at random.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="How many requests a minute are allowed.")
    ] = None,
    error: Annotated[
        list[str] | None,
        typer.Option(help="Answer a share with a status: STATUS=SHARE, e.g. 500=0.05; repeatable."),
    ] = None,
    lost_answers: Annotated[
        float | None, typer.Option(help="The share of requests that are applied, but not answered.")
    ] = None,
    lost_requests: Annotated[
        float | None,
        typer.Option(help="The share of requests that are neither applied nor answered."),
    ] = None,
    poison: Annotated[
        str | None, typer.Option(help="Answer a body that contains this text with 400.")
    ] = None,
    accept_anything: Annotated[
        bool,
        typer.Option("--accept-anything", help="Treat every attribute as defined in the panel."),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="The seed of all random decisions.")] = None,
    settings: Annotated[
        str, typer.Option(help="All switches as a JSON object; the other options win.")
    ] = "{}",
    rehearsal: Annotated[bool, typer.Option("--rehearsal", hidden=True)] = False,
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", hidden=True)] = False,
    log_format: LogFormat = None,
) -> None:
    """Run a stand-in for Lytics and all destinations, with switches for all that can go wrong.

    The commands below change a sandbox that runs, also that of `segrelay up --sandbox`.
    """
    if ctx and ctx.invoked_subcommand:
        return
    end_with_parent()
    use_log_format(log_format)
    logs.configure(logging.INFO)
    _tell_who_can_reach(host)
    named = {
        "latency_seconds": latency,
        "jitter_seconds": jitter,
        "limit_per_minute": limit,
        "error_shares": _shares(error) if error else None,
        "lost_answers": lost_answers,
        "lost_requests": lost_requests,
        "poison": poison,
        "accept_anything": accept_anything or None,
        "seed": seed,
    }
    switches = object_of(settings, "--settings") | {
        name: v for name, v in named.items() if v is not None
    }
    validated = _validated(switches)
    if rehearsal:
        loaded = load_settings()
        forget_people(loaded)  # also when `up` starts it again after a crash
        validated = validated.changed({"endpoints": endpoints_of(loaded)})
    serve(validated, port, host=host, until_stdin_ends=until_stdin_ends)


def _tell_who_can_reach(host: str) -> None:
    if not is_loopback(host):
        mention(
            f"warning: whoever reaches this machine at {host} can read everything that the sandbox"
            " is sent, with the people's data and the headers' names, and can switch its faults;"
            f" nothing asks for a password. The default, {LOOPBACK}, opens it to this machine only."
        )


def _shares(pairs: list[str]) -> dict[str, str]:
    shares = {}
    for pair in pairs:
        status, equals, share = pair.partition("=")
        if not equals:
            raise UsageWrong(f"--error {pair}: write STATUS=SHARE, e.g. 500=0.05")
        shares[status] = share
    return shares


def _validated(switches: dict[str, Any]) -> SandboxSettings:
    try:
        return SandboxSettings.model_validate(switches)
    except ValidationError as problems:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}"
            for problem in problems.errors()
        ]
        raise UsageWrong("the sandbox can't be set like that: " + "; ".join(lines)) from problems


if __name__ == "__main__":
    try:
        typer.run(sandbox)
    except SegrelayError as problem:
        mention(problem.message)
        sys.exit(problem.exit_code)
