"""The command line: one table of commands, each loaded when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Final

import typer

from segrelay.ops.completion import COMPLETED
from segrelay.ops.terminal.console import run_guarded
from segrelay.ops.terminal.frame import use_config
from segrelay.ops.terminal.lazy import LazyCommand, LazyGroup
from segrelay.ops.terminal.options import ConfigFile, Real


def _listed_under(part: str) -> Callable[..., LazyCommand]:
    """Return a function that makes the entries for one part of the table of commands."""

    def command(
        target: str, summary: str, *examples: str, passes_options: bool = False
    ) -> LazyCommand:
        return LazyCommand(target, summary, part, passes_options, examples)

    return command


_begin, _run, _feed, _operate = map(_listed_under, ("Begin", "Run", "Feed", "Operate"))

COMMANDS: Final[Mapping[str, LazyCommand]] = {
    "init": _begin(
        "segrelay.ops.config.commands:init",
        "Write a first config",
        "segrelay init my-relay",
    ),
    "config": _begin(
        "segrelay.ops.config.commands:app",
        "Check or show the config",
        "segrelay config check",
        "segrelay config check --live",
    ),
    "template": _begin(
        "segrelay.ops.templates.commands:app",
        "Write and test templates",
        "segrelay template new vip --from insider/enter",
        "segrelay template check vip --fix",
        "segrelay template render vip samples/enter.json --explain",
        "segrelay template test vip --update",
        "segrelay template diff HEAD~1 vip --waiting",
    ),
    "demo": _begin(
        "segrelay.ops.demo.command:demo",
        "See it on invented people",
        "segrelay demo",
        "segrelay demo --events 20000 --people 5000",
        "segrelay demo --console",
    ),
    "sandbox": _begin(
        "segrelay.ops.sandbox:app",
        "Run a stand-in to try with",
        "segrelay sandbox --error 500=0.05 --latency 0.1",
        "segrelay sandbox outage 5m",
        'segrelay sandbox answer --destination crm --status 422 --body "no plan"',
    ),
    "up": _run("segrelay.ops.run.up:up", "Run all that is configured"),
    "worker": _run(
        "segrelay.ops.run.worker:worker",
        "Run a worker",
        "segrelay worker --concurrency 4",
        passes_options=True,
    ),
    "serve": _run(
        "segrelay.ops.run.serve:serve",
        "Receive Lytics' webhooks",
        "segrelay serve",
        "segrelay serve --check --url https://relay.example.com/v1/lytics",
    ),
    "flower": _run("segrelay.ops.flower.command:flower", "Run Flower, for workers"),
    "console": _run(
        "segrelay.ops.console.command:app",
        "Serve a page for browsers",
        "segrelay console",
        "segrelay console password",
    ),
    "metrics": _run(
        "segrelay.ops.metrics.page:metrics",
        "Serve Prometheus' metrics",
        "segrelay metrics",
        "curl http://127.0.0.1:9464/metrics",
    ),
    "redis": _run(
        "segrelay.ops.run.redis:app",
        "Run the embedded Redis",
        "segrelay redis status",
        "segrelay redis stop",
    ),
    "send": _feed(
        "segrelay.ops.send.command:send",
        "Send a file of payloads",
        "segrelay send events.ndjson --wait",
        "segrelay send members.ndjson --job november",
    ),
    "backfill": _feed(
        "segrelay.ops.backfill.commands:app",
        "Bring whole files in",
        "segrelay backfill start vip.csv --audience vip --as-of name --wait",
        "segrelay backfill start 'x/*.json.gz' --audience vip --as-of now --canary 100",
        "segrelay backfill resume vip",
    ),
    "quarantine": _feed(
        "segrelay.ops.quarantine:app",
        "See what was not placed",
        "segrelay quarantine list --since 2h",
        "segrelay quarantine replay --reason no_trigger",
    ),
    "audience": _feed(
        "segrelay.ops.audiences.commands:app",
        "See and retire audiences",
        "segrelay audience set 4f5a4fb1d0 vip",
    ),
    "sync": _feed(
        "segrelay.ops.sync:app",
        "Follow Lytics' audiences",
        "segrelay sync run vip",
        "segrelay sync status",
    ),
    "status": _operate(
        "segrelay.ops.status.command:status",
        "See counts and problems",
        "segrelay status --watch",
        "segrelay status --check",
    ),
    "outcomes": _operate(
        "segrelay.ops.outcomes.commands:app",
        "Get ends of deliveries",
        "segrelay outcomes export hour.parquet --since 1h",
        "segrelay outcomes export hour-17.parquet --cursor warehouse",
    ),
    "audit": _operate(
        "segrelay.ops.audit:audit",
        "See who did what, and why",
        "segrelay audit --since 1d",
        "segrelay audit --what dlq --by ann@relay-1",
    ),
    "pause": _operate(
        "segrelay.ops.pause:pause",
        "Stop sending",
        'segrelay pause insider --why "maintenance until noon"',
    ),
    "resume": _operate(
        "segrelay.ops.pause:resume",
        "Send again",
        "segrelay resume insider",
        "segrelay resume --all",
    ),
    "dlq": _operate(
        "segrelay.ops.dead_letters.commands:app",
        "See, replay dead letters",
        "segrelay dlq causes",
        "segrelay dlq replay --cause 3f2a91c0 --dry-run",
        "segrelay dlq discard --trigger vip-enter --since 2h",
    ),
    "why": _operate(
        "segrelay.ops.why.command:why",
        "Tell all of one person",
        "segrelay why ann@example.com",
    ),
    "tap": _operate(
        "segrelay.ops.tap:tap",
        "See what goes through",
        "segrelay tap --for 15s",
        "segrelay tap --trigger vip-enter --outcome dead --json",
    ),
    "mcp": _operate(
        "segrelay.ops.mcp.command:mcp",
        "Let assistants look",
        "segrelay mcp",
        "segrelay mcp --actions",
    ),
    "erase": _operate(
        "segrelay.ops.person:erase",
        "Erase one person",
        "segrelay erase ann@example.com --anonymize",
    ),
    "try": _operate(
        "segrelay.ops.preview:try_",
        "Try one person's event",
        "segrelay try samples/enter.json --trigger vip-enter",
    ),
    "verify": _operate(
        "segrelay.ops.verify:verify",
        "Compare with Insider",
        "segrelay verify --sample 500",
    ),
    "discard": _operate(
        "segrelay.ops.waiting:discard",
        "Take back what waits",
        "segrelay discard --job november",
    ),
}


INSTEAD: Final[Mapping[str, str]] = {
    "reconcile": "Try 'segrelay sync run NAME --dry-run', and 'segrelay verify' for Insider.",
    "rename": "Names are fixed: docs/limits.md says what to do instead.",
}


class _Commands(LazyGroup):
    table = COMMANDS
    columns = (("Begin", "Run", "Feed"), ("Operate",))
    closing = (
        "Options (COMMAND -h: help, -V version):",
        "  --config FILE  not the usual one",
        "  --real         beside a sandbox run",
    )
    completed = COMPLETED
    instead = INSTEAD


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
    real: Real = False,
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
    """Carry audience entrances and exits from Lytics to Insider."""
    use_config(config, real=real)


def run() -> None:
    """Run the command line; the entry point of the console command `segrelay`."""
    run_guarded(app)


if __name__ == "__main__":
    run()
