"""The command line: one table of commands, each loaded when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Final

import typer

from ops.completion import COMPLETED
from ops.terminal.console import run_guarded
from ops.terminal.lazy import LazyCommand, LazyGroup
from ops.terminal.options import ConfigFile, use_config

COMMANDS: Final[Mapping[str, LazyCommand]] = {
    "init": LazyCommand(
        "ops.config.init:init",
        "Write a first configuration into a folder.",
        "Begin",
        examples=("segrelay init my-relay",),
    ),
    "config": LazyCommand(
        "ops.config.commands:app",
        "Check or show the configuration.",
        "Begin",
        examples=("segrelay config check", "segrelay config check --live"),
    ),
    "template": LazyCommand(
        "ops.templates.commands:app",
        "Write, try, test, check, compare and push templates.",
        "Begin",
        examples=(
            "segrelay template new vip --from insider/enter",
            "segrelay template check vip --fix",
            "segrelay template render vip samples/enter.json --explain",
            "segrelay template test vip --update",
            "segrelay template diff HEAD~1 vip --waiting",
        ),
    ),
    "demo": LazyCommand(
        "ops.demo.command:demo",
        "Show backfill, webhooks and sync on invented people.",
        "Begin",
        examples=("segrelay demo", "segrelay demo --events 20000 --people 5000"),
    ),
    "sandbox": LazyCommand(
        "ops.sandbox.control:app",
        "Run, switch and look at a stand-in for all destinations and Lytics.",
        "Begin",
        examples=(
            "segrelay sandbox --error 500=0.05 --latency 0.1",
            "segrelay sandbox outage 5m",
            'segrelay sandbox answer --to crm --status 422 --body \'{"message": "no plan"}\'',
        ),
    ),
    "up": LazyCommand("ops.run.up:up", "Run Redis, a worker and what else is configured.", "Run"),
    "worker": LazyCommand(
        "ops.run.worker:worker",
        "Run a worker; takes Celery's options.",
        "Run",
        passes_options=True,
        examples=("segrelay worker --concurrency 4",),
    ),
    "serve": LazyCommand(
        "ops.run.serve:serve",
        "Receive Lytics' webhooks.",
        "Run",
        examples=(
            "segrelay serve",
            "segrelay serve --check --url https://relay.example.com/v1/lytics",
        ),
    ),
    "flower": LazyCommand(
        "ops.flower.command:flower", "Run Flower, which shows the workers.", "Run"
    ),
    "metrics": LazyCommand(
        "ops.metrics.command:metrics",
        "Serve metrics for Prometheus.",
        "Run",
        examples=("segrelay metrics", "curl http://127.0.0.1:9464/metrics"),
    ),
    "redis": LazyCommand(
        "ops.run.redis:app",
        "Start, find or stop the embedded Redis.",
        "Run",
        examples=("segrelay redis status", 'redis-cli -u "$(segrelay redis url)"'),
    ),
    "send": LazyCommand(
        "ops.send.command:send",
        "Send a file of webhook payloads, or a pipe.",
        "Feed",
        examples=(
            "segrelay send events.ndjson --wait",
            "segrelay send members.ndjson --job november",
        ),
    ),
    "backfill": LazyCommand(
        "ops.backfill.commands:app",
        "Bring whole files in, as jobs that can be stopped and resumed.",
        "Feed",
        examples=(
            "segrelay backfill start vip.csv --audience vip --as-of 2026-11-25T06:00:00Z --wait",
            "segrelay backfill start 'export/*.json.gz' --audience vip --as-of now --canary 100",
            "segrelay backfill resume vip",
        ),
    ),
    "quarantine": LazyCommand(
        "ops.quarantine.commands:app",
        "See, replay or discard events that could not be placed.",
        "Feed",
        examples=(
            "segrelay quarantine list --since 2h",
            "segrelay quarantine replay --reason no_trigger",
        ),
    ),
    "audience": LazyCommand(
        "ops.audiences.commands:app",
        "See, rename or retire audiences, and say what ids stand for.",
        "Feed",
        examples=("segrelay audience set 4f5a4fb1d0 vip",),
    ),
    "sync": LazyCommand(
        "ops.sync.commands:app",
        "Compare audiences with Lytics again and again.",
        "Feed",
        examples=("segrelay sync run vip", "segrelay sync status"),
    ),
    "status": LazyCommand(
        "ops.status.command:status",
        "Show what was delivered, what waits and what is wrong.",
        "Operate",
        examples=("segrelay status --watch", "segrelay status --check"),
    ),
    "audit": LazyCommand(
        "ops.audit.command:audit",
        "Show what people did, when, and why.",
        "Operate",
        examples=("segrelay audit --since 1d", "segrelay audit --what dlq --by ann@relay-1"),
    ),
    "pause": LazyCommand(
        "ops.pause.commands:pause",
        "Stop sending to a destination or for a trigger.",
        "Operate",
        examples=('segrelay pause insider --reason "maintenance until noon"',),
    ),
    "resume": LazyCommand(
        "ops.pause.commands:resume",
        "Send again, beginning with one request to see whether it works.",
        "Operate",
        examples=("segrelay resume insider", "segrelay resume --all"),
    ),
    "dlq": LazyCommand(
        "ops.letters.commands:app",
        "See, replay or discard dead letters.",
        "Operate",
        examples=(
            "segrelay dlq causes",
            "segrelay dlq replay --cause 3f2a91c0 --dry-run",
            "segrelay dlq discard --trigger vip-enter --since 2h",
        ),
    ),
    "why": LazyCommand(
        "ops.person.command:why",
        "Tell everything that is known about one person.",
        "Operate",
        examples=("segrelay why ann@example.com",),
    ),
    "person": LazyCommand(
        "ops.person.commands:app",
        "Rename people, at Insider and in Redis, or erase them.",
        "Operate",
        examples=(
            "segrelay person rename ann@example.com ann.lee@example.com",
            "segrelay person rename --file changes.csv --json",
            "segrelay person erase ann@example.com --anonymize",
        ),
    ),
    "try": LazyCommand(
        "ops.trial.command:try_",
        "Try one person's event, or send it.",
        "Operate",
        examples=("segrelay try samples/enter.json --trigger vip-enter",),
    ),
    "reconcile": LazyCommand(
        "ops.reconcile.command:reconcile",
        "Compare an audience at Lytics with what was delivered.",
        "Operate",
        examples=("segrelay reconcile vip --insider", "segrelay reconcile vip --repair"),
    ),
    "verify": LazyCommand(
        "ops.verify.command:verify",
        "Compare what Insider holds with the ledger.",
        "Operate",
        examples=("segrelay verify --sample 500",),
    ),
    "discard": LazyCommand(
        "ops.moving.commands:discard",
        "Take back deliveries that are waiting.",
        "Operate",
        examples=("segrelay discard --job november",),
    ),
    "trigger": LazyCommand(
        "ops.moving.commands:trigger_app",
        "Move deliveries that their trigger does not want any more.",
        "Operate",
        examples=("segrelay trigger move vip-enter vips-enter",),
    ),
    "destination": LazyCommand(
        "ops.moving.commands:destination_app",
        "Give a destination another name.",
        "Operate",
        examples=("segrelay destination rename insider insider-eu",),
    ),
}


class _Commands(LazyGroup):
    table = COMMANDS
    completed = COMPLETED


app = typer.Typer(
    cls=_Commands,
    name="segrelay",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"segrelay {version('segrelay')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    config: ConfigFile = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Carry audience entrances and exits from Lytics to Insider.

    `segrelay COMMAND --help` shows what a command does, with examples. --config may stand before
    or behind the command.
    """
    use_config(config)


def run() -> None:
    """Run the command line; the entry point of the console command `segrelay`."""
    run_guarded(app)


if __name__ == "__main__":
    run()
