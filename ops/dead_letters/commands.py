"""`segrelay dlq`: dead letters, why they died, and what to do with them.

The options by which all commands of `segrelay dlq` choose letters.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import orjson
import typer
from redis import Redis

from segrelay.ops.dead_letters.files import Imported, import_dead_letters, shown
from segrelay.ops.dead_letters.reading import (
    Filter,
    StoredDeadLetter,
    dead_letters_kept,
    find_dead_letters,
    is_exhausted,
    read_causes,
)
from segrelay.ops.dead_letters.replay import ReplayPlan, plan_replay, preview_dead_letters
from segrelay.ops.dead_letters.replay import discard as discard_dead_letters
from segrelay.ops.dead_letters.replay import replay as replay_dead_letters
from segrelay.ops.state.acts import EXPORTED_FILE, Because, Doing, act_of, perform
from segrelay.ops.state.opened import opened
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import person_named, read_former_identities
from segrelay.ops.terminal.console import (
    confirmed,
    mention,
    print_json,
    print_result,
    private_file,
    say,
    say_fields,
    table,
)
from segrelay.ops.terminal.moments import parse_moment_ms, shown_ms, shown_us
from segrelay.ops.terminal.options import All, FilterOptions, Force, Ids, Json, Reveal, Yes, spread
from segrelay.ops.terminal.tables import number_columns, text_columns
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.sources.files import opened_bytes as opened_file
from segrelay.producer.wakeups import CeleryWaker
from segrelay.worker.adapters.redis.shared_keys import read_scopes
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.claim import claim, learn_numbering
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import Death, Refusal
from segrelay.worker.core.messages import place_in
from segrelay.worker.errors import UsageWrong


@dataclass(frozen=True, slots=True)
class DeadLetterOptions(FilterOptions):
    """Options that narrow each other; none means all letters."""

    cause: Annotated[
        list[str] | None,
        typer.Option(
            "--cause", help="Only letters of this cause, as `dlq causes` shows it; repeatable."
        ),
    ] = None
    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    reason: Annotated[str, typer.Option(help="Only with this reason.")] = ""
    profile: Annotated[
        str,
        typer.Option(
            help="Only letters about this person, also those from before a renaming: a value of the"
            " identity field."
        ),
    ] = ""
    since: Annotated[
        str, typer.Option(help="Died since 2026-11-24T10:00:00Z, or 2h for two hours ago.")
    ] = ""
    until: Annotated[str, typer.Option(help="Died before; written like --since.")] = ""

    def chosen(
        self, client: Redis, settings: Settings, ids: Iterable[str] = ()
    ) -> tuple[list[PartitionKeys], Filter]:
        """Return the partitions and the filter that these options stand for."""
        if self.reason and self.reason not in {known.value for known in Death}:
            known = ", ".join(death.value for death in Death)
            raise UsageWrong(f"There is no reason '{self.reason}': {known}.")
        places = all_partitions(client, settings)
        now = now_ms(client)
        digests: frozenset[str] = frozenset()
        if self.profile:
            person = person_named(self.profile, settings, learn_numbering(client, settings))
            people = [person, *read_former_identities(client, places, person.digest)]
            partitions = {each.partition for each in people}
            places = [place for place in places if place.partition in partitions]
            digests = frozenset(each.digest.hex() for each in people)
        return places, Filter(
            ids=frozenset(ids),
            causes=frozenset(self.cause or ()),
            trigger=self.trigger,
            audience=self.audience,
            reason=self.reason,
            digests=digests,
            since_ms=parse_moment_ms(self.since, "--since", now_ms=now),
            until_ms=parse_moment_ms(self.until, "--until", now_ms=now),
        )


app = typer.Typer()

_PAGE: Final = 100
_MESSAGE_CHARACTERS: Final = 80
_FATES: Final = ("sent", "skipped", "dead")
_LEFT_OUT: Final = {
    "orphaned": "the configuration does not name their trigger any more",
    "unwanted": "their trigger has another direction or other audiences now",
    "unreadable": "what they hold can't be read; name them by id to put them back as they were",
    "exhausted": "replayed three times in vain; name them by id to try again",
    Refusal.OLDER_THAN_LEDGER.value: "older than what the ledger remembers; --force replays them",
}


@app.command()
@spread
def replay(
    ids: Ids = None,
    *,
    options: DeadLetterOptions,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Send nothing: render with today's templates, and show what would be."
        ),
    ] = False,
    force: Force = False,
    everything: All = False,
    yes: Yes = False,
    because: Because = "",
    as_json: Json = False,
) -> None:
    """Send letters again, through the backfill lane and with their event's own time.

    What something newer has made stale is skipped. An event without the id of its audience gets it,
    if it is known by now. A letter that was replayed three times in vain
    is left out unless it is named by its id.
    """
    options.refuse_accidental_all(ids, everything=everything or dry_run)
    with opened() as (settings, client):
        places, wanted = options.chosen(client, settings, ids or ())
        now_us = 1_000 * now_ms(client)
        oldest_us = 0 if force else settings.delivery.remembers_since_us(now_us)
        dead_letters = find_dead_letters(client, places, wanted)
        scopes = read_scopes(client, settings)
        plan = plan_replay(dead_letters, settings, oldest_us, scopes, named=bool(ids))
        audiences = AudienceStore(client, told=settings.told_ids, learns=False)
        if dry_run:
            _preview(client, settings, places, plan, audiences, as_json=as_json)
            return
        _tell_left_out(plan)
        if plan.ids:
            confirmed(f"Replay {len(plan.ids):,} letters?", yes=yes)
        waker = CeleryWaker(settings)
        arguments = asdict(options) | {"ids": ids}
        act = act_of("dlq replay", reason=because, arguments=arguments)

        def replayed(doing: Doing) -> int:
            steps = replay_dead_letters(client, places, plan.ids, waker, audiences)
            return doing.counted("replayed", steps, len(plan.ids))

        done = perform(client, act, replayed)
    document = {"replayed": done, "left_out": dict(plan.left_out)}
    print_result(document, f"{done:,} letters replayed", as_json=as_json)


@app.command()
@spread
def discard(
    ids: Ids = None,
    *,
    options: DeadLetterOptions,
    everything: All = False,
    yes: Yes = False,
    because: Because = "",
    as_json: Json = False,
) -> None:
    """Discard dead letters for good; they are counted as discarded."""
    options.refuse_accidental_all(ids, everything=everything)
    with opened() as (settings, client):
        places, wanted = options.chosen(client, settings, ids or ())
        found = [dead_letter["id"] for dead_letter in find_dead_letters(client, places, wanted)]
        if found:
            confirmed(f"Discard {len(found):,} letters for good?", yes=yes)
        arguments = asdict(options) | {"ids": ids}
        act = act_of("dlq discard", reason=because, arguments=arguments)

        def discarded(doing: Doing) -> int:
            steps = discard_dead_letters(client, places, found)
            return doing.counted("discarded", steps, len(found))

        done = perform(client, act, discarded)
    print_result({"discarded": done}, f"{done:,} letters discarded", as_json=as_json)


@app.command()
@spread
def export(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="The file to write; it must not exist. - writes to standard output.",
        ),
    ],
    *,
    options: DeadLetterOptions,
) -> None:
    """Write letters as NDJSON, whole: with the profiles' fields. They also stay where they are."""
    with opened() as (settings, client), _created(file) as stream:
        places, wanted = options.chosen(client, settings)
        where = "" if file == "-" else str(Path(file).resolve())
        exported: set[str] = set()
        act = act_of("dlq export", arguments=asdict(options) | {EXPORTED_FILE: where})

        def written(doing: Doing) -> int:
            for dead_letter in find_dead_letters(client, places, wanted):
                if dead_letter["id"] not in exported:
                    stream.write(orjson.dumps(dead_letter) + b"\n")
                    exported.add(dead_letter["id"])
            doing.count = len(exported)
            return doing.count

        count = perform(client, act, written)
    mention(f"{count:,} letters exported")


def _created(file: str) -> AbstractContextManager[BinaryIO]:
    """Open a new file that only its owner may read, or standard output for `-`."""
    if file == "-":
        return nullcontext(sys.stdout.buffer)
    return private_file(Path(file), must_be_new=True)


@app.command("import")
def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A file that `export` wrote.")],
    *,
    as_json: Json = False,
) -> None:
    """Put exported letters back; letters that are there already are not added again.

    The exit code is 1 if a line is no letter for this Redis.
    """
    with opened_file(file) as stream, opened() as (settings, client):
        claim(client, settings)
        count = learn_numbering(client, settings)

        def added(doing: Doing) -> Imported:
            imported = import_dead_letters(client, stream, settings, count)
            doing.count = imported.added
            return imported

        imported = perform(client, act_of("dlq import"), added)
    told = f"{imported.added:,} of {imported.lines:,} letters added"
    print_result(asdict(imported), told, as_json=as_json)
    if imported.problems:
        for each in () if as_json else imported.problems:
            mention(f"line {each['line']}: {each['reason']}")
        raise typer.Exit(1)


def _tell_left_out(plan: ReplayPlan) -> None:
    for why, count in plan.left_out.items():
        mention(f"{count:,} left out: {_LEFT_OUT[why]}")


def _preview(
    client: Redis,
    settings: Settings,
    places: Sequence[PartitionKeys],
    plan: ReplayPlan,
    audiences: AudienceStore,
    *,
    as_json: bool,
) -> None:
    previewed = list(
        preview_dead_letters(client, settings, places, plan.ids, audiences, now_ms=now_ms(client))
    )
    fates = Counter(one.fate for one in previewed)
    if as_json:
        rows = [
            {"id": r.name, "fate": r.fate, "reason": r.reason, "message": r.safe_message}
            for r in previewed
        ]
        fate_counts = {f"would_be_{fate}": fates[fate] for fate in _FATES}
        print_json({**fate_counts, "left_out": dict(plan.left_out), "letters": rows})
        return
    _tell_left_out(plan)
    table(
        ("letter", "would be", "reason", *text_columns("message")),
        [
            (r.name, r.fate, r.reason or "-", r.safe_message[:_MESSAGE_CHARACTERS])
            for r in previewed
        ],
    )
    say(", ".join(f"{fates[fate]:,} would be {fate}" for fate in _FATES))


@app.command()
def causes(*, as_json: Json = False) -> None:
    """Group dead letters by the cause of their death."""
    with opened() as (settings, client):
        found = read_causes(client, all_partitions(client, settings))
    if as_json:
        print_json([asdict(cause) | {"place": _place(settings, asdict(cause))} for cause in found])
        return
    table(
        (
            "cause",
            *number_columns("letters"),
            "reason",
            "status",
            "trigger",
            "sample",
            "place",
            *text_columns("message"),
        ),
        [
            (
                c.cause,
                c.count,
                c.reason,
                c.status or "-",
                c.trigger,
                c.sample,
                _place(settings, asdict(c)) or "-",
                c.message.removeprefix(f"{place_in(c.message)}: "),
            )
            for c in found
        ],
    )


def _place(settings: Settings, told: Mapping[str, Any]) -> str:
    """Return the line of the template that failed, or the template if the line is not known."""
    known = settings.triggers.get(told["trigger"])
    return place_in(told["message"]) or (known.template if known else "")


@app.command("list")
@spread
def list_dead_letters(
    *,
    options: DeadLetterOptions,
    limit: Annotated[int, typer.Option(help="Show at most this many letters.", min=1)] = _PAGE,
    page: Annotated[int, typer.Option(help="Show this page of them, counted from 1.", min=1)] = 1,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """List letters, the newest death first."""
    with opened() as (settings, client):
        places, wanted = options.chosen(client, settings)
        first = (page - 1) * limit
        dead_letters = list(islice(find_dead_letters(client, places, wanted), first, first + limit))
        kept = dead_letters_kept(client, all_partitions(client, settings))
    if as_json:
        print_json([document(dead_letter, reveal=reveal) for dead_letter in dead_letters])
        return
    table(
        (
            *("letter", "died", "reason", "trigger", "audience", "direction", "cause"),
            *text_columns("message"),
        ),
        [_row(dead_letter, reveal=reveal) for dead_letter in dead_letters],
    )
    say(f"{len(dead_letters):,} shown of {kept:,} letters")
    if len(dead_letters) == limit:
        mention(f"--page {page + 1} shows more.")


@app.command()
def show(
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """Show one letter with all that is known; profile fields are masked."""
    with opened() as (settings, client):
        places = all_partitions(client, settings)
        dead_letter = next(
            find_dead_letters(client, places, Filter(frozenset({dead_letter_id}))), None
        )
    if dead_letter is None:
        raise UsageWrong(f"There is no letter {dead_letter_id}; `segrelay dlq list` has the ids.")
    found = {"place": _place(settings, dead_letter)} | document(dead_letter, reveal=reveal)
    if as_json:
        print_json(found)
    else:
        say_fields(found)


def document(dead_letter: StoredDeadLetter, *, reveal: bool) -> dict[str, Any]:
    """Return a letter as it is printed as JSON."""
    return shown(dead_letter, reveal=reveal) | {
        "time": shown_us(dead_letter["time_us"]),
        "first_at": shown_ms(dead_letter["first_at_ms"]),
        "last_at": shown_ms(dead_letter["last_at_ms"]),
        "exhausted": is_exhausted(dead_letter),
    }


def _row(dead_letter: StoredDeadLetter, *, reveal: bool) -> tuple[str, ...]:
    message = shown(dead_letter, reveal=reveal)["message"]
    return (
        dead_letter["id"],
        shown_ms(dead_letter["last_at_ms"]),
        dead_letter["reason"],
        dead_letter["trigger"],
        dead_letter["audience"],
        dead_letter["direction"],
        dead_letter["cause"],
        message[:_MESSAGE_CHARACTERS],
    )
