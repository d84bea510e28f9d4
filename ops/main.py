"""The command line: one table of commands, each loaded when it is called, and its completions.

The names that a shell completes come from the configuration and from a Redis that runs already.
Whatever goes wrong completes nothing and says nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final

import typer

from segrelay.ops.terminal.console import run_guarded
from segrelay.ops.terminal.frame import LazyCommand, LazyGroup, use_config
from segrelay.ops.terminal.options import ConfigFile, Real

if TYPE_CHECKING:
    from segrelay.worker.contract.settings import Settings

_TABLE: Final = """\
Begin
  init        config.commands:init       Write a first config
  config      config.commands:app        Check or show the config
  template    templates.commands:app     Write and test templates
  demo        demo:demo                  See it on invented people
  sandbox     sandbox:app                Run a stand-in to try with
Run
  up          run.up:up                  Run all that is configured
  worker      run.worker:worker          Run a worker
  serve       run.serve:serve            Receive Lytics' webhooks
  flower      run.worker:flower          Run Flower, for workers
  console     console.command:app        Serve a page for browsers
  metrics     metrics.page:metrics       Serve Prometheus' metrics
  redis       run.redis:app              Run the embedded Redis
Feed
  send        send:send                  Send a file of payloads
  backfill    backfill.commands:app      Bring whole files in
  quarantine  kept:quarantine            See what was not placed
  audience    audiences:app              See and retire audiences
  sync        sync:app                   Follow Lytics' audiences
Operate
  status      status.command:status      See counts and problems
  outcomes    outcomes:app               Get ends of deliveries
  audit       audit:audit                See who did what, and why
  pause       pause:pause                Stop sending
  resume      pause:resume               Send again
  dlq         dead_letters.commands:app  See, replay dead letters
  why         why:why                    Tell all of one person
  tap         outcomes:tap               See what goes through
  mcp         mcp.command:mcp            Let assistants look
  erase       person:erase               Erase one person
  try         templates.render:try_      Try one person's event
  verify      verify:verify              Compare with Insider
  discard     kept:discard               Take back what waits
"""
"""The commands by the parts of the help: the name, the function or `typer.Typer`, the summary."""
_EXAMPLES: Final = """\
segrelay init my-relay
segrelay config check
segrelay config check --live
segrelay template new vip --from insider/enter
segrelay template check vip --strict
segrelay template test vip --update
segrelay template diff vip-before vip --waiting
segrelay demo
segrelay demo --console
segrelay sandbox set credentials_status=401
segrelay sandbox set 'failures=[{"status": 503}]'
segrelay sandbox set 'answers=[{"endpoint": "crm", "status": 422}]'
segrelay worker --concurrency 4
segrelay serve
segrelay serve --check --url https://relay.example.com/v1/lytics
segrelay console
segrelay console password
segrelay metrics
segrelay redis status
segrelay send events.ndjson --wait
segrelay backfill start vip.csv --audience vip --as-of name --wait
segrelay backfill start 'x/*.json.gz' --audience vip --as-of now --canary 100
segrelay backfill resume vip
segrelay quarantine replay --reason no_trigger
segrelay audience set 4f5a4fb1d0 vip
segrelay sync run vip
segrelay status --watch
segrelay status --check
segrelay outcomes export hour.parquet --since 1h
segrelay outcomes export hour-17.parquet --cursor warehouse
segrelay audit --what dlq --by ann@relay-1
segrelay pause insider --why "maintenance until noon"
segrelay resume --all
segrelay dlq causes
segrelay dlq replay --cause 3f2a91c0 --dry-run
segrelay dlq discard --trigger vip-enter --since 2h
segrelay why ann@example.com
segrelay tap --trigger vip-enter --outcome dead --json
segrelay mcp
segrelay mcp --actions
segrelay erase ann@example.com --anonymize
segrelay try samples/enter.json --trigger vip-enter
segrelay verify --sample 500
segrelay discard --job november
"""
"""Command lines that the helps of their commands show."""


def _commands() -> Iterator[tuple[str, LazyCommand]]:
    part = ""
    for line in _TABLE.splitlines():
        if not line.startswith(" "):
            part = line
            continue
        name, target, summary = line.split(maxsplit=2)
        examples = [one for one in _EXAMPLES.splitlines() if one.split()[1] == name]
        yield name, LazyCommand(f"segrelay.ops.{target}", summary, part, tuple(examples))


COMMANDS: Final[Mapping[str, LazyCommand]] = dict(_commands())


Completion = Callable[[str], list[str]]


def _completing(read: Callable[[Settings], Iterable[str]]) -> Completion:
    """Return a function that completes the names that a reader finds, if it finds any."""

    def complete(incomplete: str) -> list[str]:
        from segrelay.worker.contract.settings import load_settings  # noqa: PLC0415 - see `_templates`

        with redirect_stderr(io.StringIO()):  # a shell's prompt is no place for errors
            try:
                return sorted(one for one in read(load_settings()) if one.startswith(incomplete))
            except Exception:  # noqa: BLE001 - see above
                return []

    return complete


def _templates(settings: Settings) -> Iterable[str]:
    from segrelay.ops.templates.workspace import names_in  # noqa: PLC0415 - only who completes needs it

    return names_in(settings.templates_folder)


def _audience_names(settings: Settings) -> set[str]:
    of_triggers = {name for each in settings.triggers.values() for name in each.audiences}
    return (of_triggers | {each.audience for each in settings.sync.values()}) - {"*"}


def _jobs(_: Settings) -> Iterable[str]:
    from segrelay.ops.state.opened import already_there  # noqa: PLC0415 - see above
    from segrelay.producer.backfill.jobs import JobStore  # noqa: PLC0415 - see above

    with already_there() as (_, client):
        return JobStore(client).names()


_audiences, _template = _completing(_audience_names), _completing(_templates)
_pausable = _completing(lambda settings: [*settings.destinations, *settings.triggers])

COMPLETED: Final[Mapping[str, Completion]] = {
    "trigger": _completing(lambda settings: settings.triggers),
    "audience": _audiences,
    "slug": _audiences,
    "destination": _completing(lambda settings: settings.destinations),
    "job": _completing(_jobs),
    "template": _template,
    "pause names": _pausable,
    "resume names": _pausable,
    "sync name": _completing(lambda settings: settings.sync),
    "template names": _template,
    "template before": _template,
}
"""Functions by the name of the argument or option that they complete. A key such as `pause names`
holds only for the commands of the section `pause`."""


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
