"""`segrelay backfill`: jobs that bring in whole files."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from segrelay.ops.backfill.job_request import (
    RowOptions,
    progress_of_rows,
    read_anew,
    refuse_forgotten_rows,
    spec_of,
)
from segrelay.ops.send import Deadline, wait_for_deliveries
from segrelay.ops.state.opened import Acts, Asks, Doing, Reads, actor, insist, perform
from segrelay.ops.state.partitions import Stream, all_partitions, snapshots, sum_counts
from segrelay.ops.state.waiting import Filter, find_streams, measure, state_of, take_back
from segrelay.ops.terminal.console import mention
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.options import AtMost, Timeout
from segrelay.ops.terminal.serving import Interruption, interruptible_between_steps
from segrelay.ops.terminal.tables import TableColumns, count_columns, number_columns, text_columns
from segrelay.producer.backfill.jobs import Job, JobPhase, JobStore, JobTally, read_watch
from segrelay.producer.backfill.publishing import prepare_shards
from segrelay.producer.backfill.reading import read_job
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.worker.contract.own_processes import deferred
from segrelay.worker.contract.printable import did_you_mean, plural
from segrelay.worker.contract.redis.acts import note_act
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import (
    JOB,
    Pause,
    clear_pause,
    field_of,
    read_pauses,
    set_pause,
)
from segrelay.worker.contract.words import job_of_lane
from segrelay.worker.errors import UsageWrong

if TYPE_CHECKING:
    from segrelay.ops.backfill import planning
else:  # what renders and checks is half of what there is to load
    planning = deferred("segrelay.ops.backfill.planning")

_TOLD_AGAIN_SECONDS: Final = 10.0
_COUNTS: Final = ("accepted", "delivered", "skipped", "dead", "waiting")

app = typer.Typer(help="Bring whole files in, as jobs that can be stopped and resumed.")

JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Return when no delivery of the job is waiting.")
]


@app.command()
def plan(options: RowOptions, *, relay: Reads) -> Result:
    """Read the rows and say what a backfill would do; nothing is written and nothing is sent.

    It counts rows, events and bad rows, asks the ledger what is known already, renders a few rows
    of each trigger, and reckons requests and the duration at the allowed rate.
    """
    return planning.plan(options, relay)


@app.command()
def start(
    options: RowOptions,
    *,
    job: Annotated[str, typer.Option(help="The job's name.")] = "",
    canary: Annotated[
        int, typer.Option(help="Deliver this many rows first, then stop.", metavar="N", min=0)
    ] = 0,
    wait: Wait = False,
    timeout: Timeout = "",
    relay: Acts,
) -> Result:
    """Bring whole files in, as a job that can be stopped at any moment and resumed.

    Rows that are webhook payloads keep their own events. Other rows are profiles: each becomes a
    member (or former member) of --audience, at the time --as-of. Insider starts no journeys for
    them unless you say --hooks. With --canary the first rows are delivered, and the job waits until
    it is resumed. Rows that are older than what the ledger remembers are accepted with
    --older-than-ledger only.
    """
    prepare_shards()
    client = relay.client
    store = JobStore(client)
    spec = spec_of(options, relay.settings, client, name=job, canary=canary)
    refuse_forgotten_rows(spec, relay.settings, 1_000 * store.now_ms())
    store.create(spec)
    act = relay.act(spec.name, **{"from": ", ".join(spec.sources), "canary": spec.canary})
    insist(lambda: note_act(client, act))
    journeys = "no journeys are" if spec.options.skip_hook else "journeys may be"
    mention(f"job {spec.name}: {journeys} started")
    return _run(relay, spec.name, Deadline(timeout), wait=wait)


@app.command()
def resume(job: JobName, *, wait: Wait = False, timeout: Timeout = "", relay: Acts) -> Result:
    """Go on with a job that was paused, interrupted, or waits after its first rows.

    It continues exactly where it stopped. Standard input and scans can't be read twice: such a job
    starts again, and people who were delivered are not delivered twice.
    """
    client, settings = relay.client, relay.settings
    act = relay.act(job)
    store = JobStore(client)
    found = store.named(job)
    _refuse_aborted(job, found.phase)
    if found.phase == "read":
        insist(lambda: clear_pause(client, field_of(JOB, job), act))
        mention(f"Job '{job}' has been read to its end; what is waiting of it is delivered.")
    else:
        _refuse_changes(found, settings)
        again = None if found.spec.resumes else read_anew(found, settings, store)

        def go_on(_: Doing) -> None:
            _refuse_aborted(job, store.resume(job, again))
            clear_pause(client, field_of(JOB, job))

        perform(client, act, go_on, is_counted=False)
    return _run(relay, job, Deadline(timeout), wait=wait)


@app.command()
def pause(job: JobName, *, relay: Acts) -> Result:
    """Pause a job: its rows are neither read nor delivered until somebody resumes it.

    Nothing that is read from then on is accepted. What a worker has read by then may still be sent.
    """
    client = relay.client
    store = JobStore(client)
    _refuse_aborted(job, store.named(job).phase)

    def stop(_: Doing) -> None:
        _refuse_aborted(job, store.stop(job, "paused", all_partitions(client, relay.settings)))
        at = datetime.now(UTC).isoformat(timespec="seconds")
        set_pause(client, field_of(JOB, job), Pause(relay.why or "paused by a person", actor(), at))

    perform(client, relay.act(job), stop, is_counted=False)
    told = f"Job '{job}' is paused. `segrelay backfill resume {job}` goes on."
    return Result({"job": job}, told)


@app.command()
def abort(job: JobName, *, at_most: AtMost = None, relay: Asks) -> Result:
    """End a job: its waiting deliveries are removed and counted as discarded.

    Nothing that is read from then on is accepted. What a worker has read by then may still be sent.
    With --at-most a job that is being read is paused first, so that the number stands.
    """
    client = relay.client
    store = JobStore(client)
    store.named(job)
    choice = Filter(job=job)
    partitions = all_partitions(client, relay.settings)

    def found() -> list[Stream]:
        return find_streams(client, partitions, choice)

    def refuse_more(streams: Sequence[Stream], so: str) -> None:
        waiting = sum(stream.length for stream in streams)
        if at_most is not None and waiting > at_most:
            raise UsageWrong(
                f"It would be {plural(waiting, 'waiting delivery', 'waiting deliveries')}, more"
                f" than the {at_most:,} of --at-most. {so}"
            )

    seen = found()
    refuse_more(seen, "Nothing was done.")
    waiting = sum(stream.length for stream in seen)
    relay.confirm(f"End job '{job}' and discard {waiting:,} waiting deliveries for good?")

    def end(doing: Doing) -> int:
        counted: list[Stream] | None = None
        if at_most is not None:
            store.stop(job, "paused", partitions)
            counted = measure(client, found())
            refuse_more(counted, f"Job '{job}' is not ended, but nobody reads it now.")
        store.stop(job, "aborted", partitions)
        streams = found() if counted is None else counted  # no more of it will come
        waiting = sum(stream.length for stream in streams)
        steps = take_back(client, relay.settings, streams, choice)
        doing.counted("discarded", steps, waiting)
        clear_pause(client, field_of(JOB, job))
        return doing.count

    discarded = perform(client, relay.act(job), end)
    told = f"Job '{job}' is ended; {plural(discarded, 'delivery', 'deliveries')} discarded"
    return Result({"job": job, "discarded": discarded}, told)


@app.command()
def status(
    job: Annotated[
        str, typer.Argument(metavar="[JOB]", help="The job; all jobs if it is not given.")
    ] = "",
    *,
    relay: Reads,
) -> Result:
    """List all jobs, the newest first; with a name, show the state of that job."""
    store = JobStore(relay.client)
    jobs = [store.named(job)] if job else store.found(store.names()).values()
    views = read_views(relay.client, relay.settings, jobs)
    if job:
        return Result(views[0].document(), *views[0].lines())
    views.sort(key=lambda view: view.job.spec.started_at, reverse=True)
    columns: TableColumns = (
        *text_columns("state"),
        *number_columns("rows"),
        *count_columns(*_COUNTS),
    )
    cells = [
        (
            view.job.spec.name,
            view.state,
            view.job.tally.rows,
            *map(view.counts.__getitem__, _COUNTS),
        )
        for view in views
    ]
    return Result([view.document() for view in views], Table(("job", *columns), cells))


@app.command()
def watch(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="The name of a table [backfill.watch.NAME]."),
    ] = "",
    *,
    relay: Reads,
) -> Result:
    """Show the watches, or one of them: which files it took, and which it can't read.

    Workers look for files: each new one at the source of a [backfill.watch.NAME] becomes a job.
    """
    tables = relay.settings.backfill.watch
    if name and name not in tables:
        hint = did_you_mean(name, tables) or "the configuration names none"
        raise UsageWrong(f"There is no [backfill.watch.{name}]: {hint}.")
    states = {one: read_watch(relay.client, one) for one in ([name] if name else tables)}
    rows = [
        {"name": one, "source": tables[one].source, **asdict(state)}
        for one, state in states.items()
    ]
    columns: TableColumns = ("watch", *text_columns("source", "state"))
    cells = [(one, tables[one].source, state.line()) for one, state in states.items()]
    details = [
        line
        for state in states.values()
        for line in (
            *(f"can't be taken: {file}: {why}" for file, why in state.refused.items()),
            *([f"problem: {state.problem}"] if state.problem else ()),
        )
    ]
    return Result(rows[0] if name else rows, Table(columns, cells), *details)


def _refuse_aborted(job: str, phase: JobPhase) -> None:
    if phase == "aborted":
        raise UsageWrong(f"Job '{job}' was aborted; start a new one.")


def _refuse_changes(job: Job, settings: Settings) -> None:
    """Refuse to resume a job if triggers, identity or partitions have changed since it began."""
    if routing_digest(settings) != job.spec.routing:
        raise UsageWrong(
            f"Triggers, identity or partitions have changed since job '{job.spec.name}' began, so "
            "that the rest of its rows would become other deliveries. Undo the change, or abort "
            "the job and start a new one: what was delivered is not delivered twice."
        )


def _run(relay: Reads, name: str, deadline: Deadline, *, wait: bool) -> Result:
    """Read a job to its end, wait for its deliveries if wanted, and report."""
    client, settings = relay.client, relay.settings
    store = JobStore(client)
    phase = store.phase(name)
    waiting = 0
    with interruptible_between_steps() as interruption:
        if phase == "reading":
            phase = _read(store, settings, name, interruption)
        if interruption.is_requested:
            mention(f"Stopped; `segrelay backfill resume {name}` goes on exactly where it stopped.")
            interruption.obey()
        if wait or phase == "canary":
            waiting = wait_for_deliveries(client, settings, name, deadline, interruption)
    [view] = insist(lambda: read_views(client, settings, [store.named(name)]))
    document, lines, notes = view.document(), list(view.lines()), []
    was_stopped, has_failed = phase in {"paused", "aborted"}, False
    if phase == "canary":
        dead = view.counts["dead"]
        has_failed = dead > 0
        document["canary_passed"] = not dead
        lines.append(
            f"The canary has failed: {dead:,} of its deliveries are dead."
            if dead
            else "The canary was delivered. `segrelay verify --older-than 1m` reads people back."
        )
    if view.job.tally.refused:
        notes.append(
            "Rows that could not be placed are kept: `segrelay quarantine list`; `segrelay backfill"
            " plan` of a file names their lines."
        )
    if was_stopped:
        notes.append(f"Job '{name}' was {phase} by a person before it was read to its end.")
    failed = bool(was_stopped or has_failed or waiting)
    return Result(document, *lines, notes=notes, exit_code=int(failed))


def _read(store: JobStore, settings: Settings, name: str, interruption: Interruption) -> JobPhase:
    """Read a job behind a progress bar, and print why the reading waits."""
    job = store.named(name)
    told_at = -_TOLD_AGAIN_SECONDS
    with progress_of_rows(job.spec) as advance:

        def watch(tally: JobTally, bytes_read: int, waiting_for: str) -> None:
            nonlocal told_at
            advance(bytes_read, tally.rows)
            if waiting_for and time.monotonic() - told_at >= _TOLD_AGAIN_SECONDS:
                told_at = time.monotonic()
                mention(f"waiting: {waiting_for}")

        return read_job(
            store, job, settings, watch, is_told_to_stop=lambda: interruption.is_requested
        )


_STANDS: Final = frozenset({"interrupted", "paused", "failed", "at its canary"})
KINDS: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and the outcomes of its deliveries."""

    job: Job
    counts: Mapping[str, int]
    reasons: Mapping[str, Mapping[str, int]]
    pause: Pause | None

    @property
    def state(self) -> str:
        """Return the job's state in a word or two."""
        return state_of(self.job, waiting=self.counts["waiting"], pause=self.pause)

    @property
    def next_step(self) -> str:
        """Return the command that goes on with the job; "" = nothing needs to be done."""
        return f"segrelay backfill resume {self.job.spec.name}" if self.state in _STANDS else ""

    def document(self) -> dict[str, Any]:
        """Return the state of the job as `backfill status --json` prints it."""
        spec, tally = self.job.spec, self.job.tally
        return {
            "job": spec.name,
            "state": self.state,
            "started_at": spec.started_at,
            **spec.document(),
            "triggers": list(spec.options.triggers),
            "rows": tally.rows,
            "events": tally.events,
            "unmatched": tally.unmatched,
            "refused": tally.refused,
            "bytes": spec.size,
            **{kind: self.counts[kind] for kind in KINDS},
            "skipped_by_reason": dict(self.reasons["skipped"]),
            "dead_by_reason": dict(self.reasons["dead"]),
            "paused": self.pause.reason if self.pause else None,
            "problem": self.job.problem or None,
            "next": self.next_step or None,
        }

    def lines(self) -> Iterator[str]:
        """Yield the state of the job as `backfill status` prints it."""
        spec, tally, counts = self.job.spec, self.job.tally, self.counts
        yield f"job {spec.name}: {self.state}"
        yield f"  from {', '.join(spec.sources)}, begun {spec.started_at}"
        if self.job.problem:
            yield f"  {self.job.problem}"
        if self.pause:
            yield f"  not delivered: {self.pause.reason}"
        if spec.membership:
            m = spec.membership
            yield f"  {m.direction} of {m.audience} as of {m.as_of}"
        yield (
            f"  read: {plural(tally.rows, 'row')}, {plural(tally.events, 'event')}, "
            f"{tally.unmatched:,} unmatched, {tally.refused:,} refused"
        )
        yield (
            f"  deliveries: {counts['accepted']:,} accepted = {counts['delivered']:,} delivered "
            f"+ {counts['skipped']:,} skipped + {counts['dead']:,} dead "
            f"+ {counts['discarded']:,} discarded + {counts['waiting']:,} waiting"
        )
        for kind, reasons in self.reasons.items():
            for reason, number in sorted(reasons.items()):
                yield f"    {kind} {reason}: {number:,}"
        if self.next_step:
            yield f"  next: {self.next_step}"


def read_views(client: Redis, settings: Settings, jobs: Iterable[Job]) -> list[JobView]:
    """Read the outcomes of jobs' deliveries, and what pauses them."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: defaultdict[str, dict[str, Counter[str]]] = defaultdict(
        lambda: {"skipped": Counter(), "dead": Counter()}
    )
    found = snapshots(client, all_partitions(client, settings))
    for field_name, number in (row for one in sum_counts(found).values() for row in one.items()):
        match field_name.split("|"):
            case ["job", name, kind]:
                counts[name][kind] += number
            case ["job", name, "skipped" | "dead" as kind, reason]:
                reasons[name][kind][reason] += number
    for each in (each for one in found for each in one.waiting):
        counts[job_of_lane(each.lane)]["waiting"] += each.length
    paused = read_pauses(client).jobs
    names = [(job, job.spec.name) for job in jobs]
    return [JobView(job, counts[name], reasons[name], paused.get(name)) for job, name in names]
