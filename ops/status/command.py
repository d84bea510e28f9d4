"""`segrelay status`: the state of the relay, once or live."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Final

import orjson
import typer

from ops.state.opened import already_there, opened
from ops.status.capacity import capacity_lines, read_capacity
from ops.status.health.judgement import read_judged
from ops.status.health.problem import ILL, line_of
from ops.status.meter import LOOKS, ProgressMeter
from ops.status.screen import StatusScreen
from ops.status.text import sum_of, tell
from ops.terminal.console import mention, print_json, print_result, say, say_wrapped
from ops.terminal.options import Json
from worker.contract.patience import READY_SECONDS
from worker.contract.printable import json_text
from worker.contract.settings import load_settings
from worker.contract.settings.sandboxed import SANDBOX_VARIABLE, sandbox_url
from worker.errors import ConfigurationInvalid, OperationsMustAct, RedisUnavailable, UsageWrong

EXIT_ILL: Final = 1
UNREACHABLE: Final = 3
"""Exit code of `status --check` without Redis; `EXIT_ILL` means that there are problems."""

_EVERY_SECONDS: Final = 1.0

Read = Callable[[], dict[str, Any]]


def status(
    *,
    as_json: Json = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Show it again and again, until Ctrl-C; as JSON, a line each."
        ),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Print only what is wrong, for a monitor.")
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="With --check: also what is worth a look this week.")
    ] = False,
    notify_test: Annotated[
        bool,
        typer.Option("--notify-test", help="Send a test message to operate.notify.url, and end."),
    ] = False,
    capacity: Annotated[
        bool,
        typer.Option(
            "--capacity",
            help="Reckon how long the backlog takes, and the memory that more people need.",
        ),
    ] = False,
) -> None:
    """Show how everything stands: accepted = delivered + skipped + dead + discarded + waiting.

    Problems stand on top: each with its name, its cause, and the command that shows or mends it.
    The exit code of --check is 0 if all is well, 1 if something is ill (customers notice it, or
    will soon), 3 if Redis can't be reached. It starts nothing.
    """
    if notify_test and (check or watch):
        alone = "--check" if check else "--watch"
        raise UsageWrong(f"--notify-test sends one message and ends; leave out {alone}.")
    if check and watch:
        raise UsageWrong("--check looks once; leave out --watch.")
    if attention and not check:
        raise UsageWrong("--attention belongs to --check.")
    if notify_test:
        _test_messages(as_json=as_json)
        return
    if capacity and (check or watch):
        raise UsageWrong("--capacity looks once; leave out --check and --watch.")
    if check:
        raise typer.Exit(_checked(as_json=as_json, attention=attention))
    with opened(ready_seconds=READY_SECONDS, patient=False) as (settings, client):

        def read() -> dict[str, Any]:
            return read_judged(client, settings)

        if capacity:
            _tell_capacity(read_capacity(client, settings, read()), as_json=as_json)
        elif watch:
            _watch(read, as_json=as_json)
        elif as_json:
            print_json(read())
        else:
            tell(read())


def _test_messages(*, as_json: bool) -> None:
    """Send a test message to operate.notify.url."""
    from ops.status.notices.announcer import TEST, post  # noqa: PLC0415 - needs an HTTP client

    settings = load_settings()
    notify = settings.operate.notify
    if sandbox_url(os.environ):
        raise ConfigurationInvalid(
            f"A rehearsal sends no messages; unset {SANDBOX_VARIABLE} to try operate.notify.url."
        )
    if notify is None:
        raise ConfigurationInvalid(
            f'{settings.source.name} has no [operate.notify]; add it, with url = "env:NAME".'
        )
    failure = post(TEST, notify).failure
    if as_json:
        print_json({"sent": not failure, "reason": failure})
    if failure:
        raise OperationsMustAct(
            f"The address of operate.notify.url ({notify.url.origin}) took no message: {failure}."
            " See whether the URL is right, and can be reached from this machine."
        )
    if not as_json:
        say("The test message was taken.")


def _tell_capacity(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for line in capacity_lines(found):
        say_wrapped(line)


def _checked(*, as_json: bool, attention: bool) -> int:
    """Print the problems; return the exit code."""
    try:
        with already_there() as (settings, client):
            found = read_judged(client, settings)["problems"]
    except RedisUnavailable as error:
        document = {"reachable": False, "reason": error.message, "problems": []}
        print_result(document, error.message, as_json=as_json)
        return UNREACHABLE
    problems = [each for each in found if attention or each["severity"] == ILL]
    lines = [line_of(each) for each in problems] or ["All is well."]
    print_result({"reachable": True, "problems": problems}, *lines, as_json=as_json)
    return EXIT_ILL if problems else 0


def _watch(read: Read, *, as_json: bool) -> None:
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            _draw_again(read)
        else:
            _tell_again(read, as_json=as_json)


def _tell_again(read: Read, *, as_json: bool) -> None:
    for document, pace in _readings(read, looks=2):
        rates = pace.rates()
        if as_json:
            line = json_text(orjson.dumps({**document, "per_second": rates}))
            sys.stdout.write(line + "\n")
        else:
            say(sum_of(document, rates))
        sys.stdout.flush()


def _draw_again(read: Read) -> None:
    from rich.console import Console, Group  # noqa: PLC0415 - `--help` has to be quick
    from rich.live import Live  # noqa: PLC0415 - see above

    with Live(console=Console(), auto_refresh=False, vertical_overflow="crop") as live:
        for document, pace in _readings(read, looks=LOOKS):
            # The line below the last one is the cursor's.
            screen = StatusScreen(document, pace, live.console.height - 1)
            live.update(Group(*screen.drawn()), refresh=True)


def _readings(read: Read, looks: int) -> Iterator[tuple[dict[str, Any], ProgressMeter]]:
    """Yield the status every second, with the pace of its counts over the last looks.

    A Redis that is away for a while does not end the watching.
    """
    meter = ProgressMeter(looks)
    while True:
        try:
            document = read()
        except RedisUnavailable as error:
            mention(error.message)
        else:
            meter.look(document, time.monotonic())
            yield document, meter
        time.sleep(_EVERY_SECONDS)
