"""The verdict on a run: all counts, and the broken promises with their evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import httpx

from segrelay.ops.state.person import LedgerLine, Names, read_records
from segrelay.ops.status.command import read_status
from segrelay.producer.events.payloads import parse_time
from segrelay.sandbox.people import Happening, newest_of, truth
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from tests.rig import DESTINATION, Rig
from tools.chaos.feeding import Feeder
from tools.chaos.injector import FaultInjector
from tools.chaos.plan import Plan
from tools.chaos.syncing import EXIT_TRIGGER, EXPORTED, Regulars, RewrittenFile
from tools.chaos.watching import Course, RunSample, Watch


def ledgers_of(rig: Rig, emails: Iterable[str]) -> dict[str, list[LedgerLine]]:
    """Return the lines of people's ledgers, by email."""
    names = Names(rig.client)
    partitions: dict[int, list[str]] = {}
    for email in emails:
        number = partition_of(key_of(email), rig.settings.redis.partitions)
        partitions.setdefault(number, []).append(email)
    found: dict[str, list[LedgerLine]] = {}
    for number, own in partitions.items():
        partition = PartitionKeys(DESTINATION, number)
        records = read_records(rig.client, partition, [digest_of(key_of(email)) for email in own])
        found |= {e: list(names.lines(record)) for e, record in zip(own, records, strict=True)}
    return found


def key_of(email: str) -> str:
    """Return the profile key of an email address."""
    return f"email:{email}"


_PAGE: Final = 1_000
_EMAIL: Final = "email:"


class LoggedEvent(NamedTuple):
    """An event as Insider's log has it."""

    time_us: int
    audience: str
    is_exit: bool


def missing_events(rig: Rig, happened: list[Happening]) -> list[Happening]:
    """Return the newest events of people and audiences that Insider's log lacks.

    People of whom the sandbox keeps only the last events are passed over.
    """
    newest = newest_of(happened)
    emails = {email for email, _ in newest}
    ledgers = ledgers_of(rig, sorted(emails))
    logged = _logged(rig, emails)
    return [
        event
        for event in newest.values()
        if (found := logged.get(event.email, ())) is not None
        and not is_told(event, found, ledgers[event.email])
    ]


def is_told(
    event: Happening, logged: Collection[LoggedEvent], ledger: Iterable[LedgerLine]
) -> bool:
    """Say whether a person's log contains the newest event of an audience, or one in its place.

    A state event that told the same later stands for it, if it was delivered. If it was not,
    because Insider had it already, the ledger's time was raised, and the newest event that the log
    has is an earlier one of the same direction.
    """
    own = sorted(each for each in logged if each.audience == event.audience)
    if any(each.is_exit == event.is_exit and each.time_us >= event.time_us for each in own):
        return True
    is_raised = any(
        line.raised and line.audience == event.audience and line.delivered_us >= event.time_us
        for line in ledger
    )
    return is_raised and bool(own) and own[-1].is_exit == event.is_exit


def _logged(rig: Rig, emails: Collection[str]) -> Mapping[str, list[LoggedEvent] | None]:
    """Return Insider's event log by email; None for people whose log is cut short."""
    found: dict[str, list[LoggedEvent] | None] = {}
    for email, profile in _profiles(rig, emails):
        is_whole = profile["event_count"] == len(profile["events"])
        found[email] = [_read(event) for event in profile["events"]] if is_whole else None
    return found


def _read(event: Mapping[str, Any]) -> LoggedEvent:
    told = event["event_params"]["custom"]
    return LoggedEvent(parse_time(event["timestamp"]), told["audience"], told["trigger"] == "exit")


def _profiles(rig: Rig, emails: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    offset = 0
    while found := rig.sandbox.get("profiles", limit=str(_PAGE), offset=str(offset)):
        offset += len(found)
        for profile in found:
            for email in _emails(profile["identifiers"]):
                if email in emails:
                    yield email, profile


def _emails(identifiers: Iterable[str]) -> Iterator[str]:
    return (key.removeprefix(_EMAIL) for key in identifiers if key.startswith(_EMAIL))


SIX: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")
_ZEROS: Final = (
    "lost",
    "wrong_memberships",
    "overlaps_of_different_events",
    "wrong_in_rewritten_export",
    "events_missing_in_log",
)
_TRIGGERS: Final[Mapping[bool, tuple[str, ...]]] = {False: ("enter",), True: ("exit", "exit-event")}
_SHOWN: Final = 20
_FATES: Final = ("answered", "in_flight", "unanswered")
_MAYBE_APPLIED: Final = ("lost_answer", "late", "error.500", "error.502", "error.503")


class Participants(NamedTuple):
    """The parts of a chaos run that act on the system or observe it."""

    feeder: Feeder
    injector: FaultInjector
    watch: Watch
    regulars: Regulars
    rewritten: RewrittenFile
    course: Course


@dataclass(frozen=True, slots=True)
class ChaosVerdict:
    """The report on a chaos run; its fields are those of the document that `--json` prints.

    Args:
        status: The status in the end, of which the six counts and the reasons are printed.
        lost: Deliveries that were accepted and came to no end, and newest events that the ledger
            does not know as delivered.
        wrong_in_rewritten_export: People who are wrong in the audience of the export, or were taken
            out of it at any time though every version has them.
        events_missing_in_log: Newest events that Insider's log does not have.
        requests_with_events_sent_twice: Requests of which an event was logged again, by what had
            become of them.
        requests_sent_twice: Requests of which something was sent again, by what had become of them.
        explained_by_kills: Drains that could be under way in what was killed or stopped.
        explained_by_faults: Requests that got no sure answer.
        moves_found_by_sync: The number of people who joined or left the synced audience.
        accepted_from_sync: Deliveries that the sync published.
        facts: Counts that say whether the export was rewritten; none of them is good or bad.
        course: Deliveries a second and memory, at each tenth of the disruptions and at the end.
        evidence: About each wrong profile.
    """

    seconds: float
    status: dict[str, Any]
    lost: int
    wrong_memberships: int
    overlaps_of_different_events: int
    wrong_in_rewritten_export: int
    events_missing_in_log: int
    requests_with_events_sent_twice: dict[str, int]
    facts: dict[str, int]
    requests: dict[str, Any]
    requests_sent_twice: dict[str, int]
    explained_by_kills: int
    explained_by_faults: int
    sums_checked: int
    disruptions: dict[str, int]
    slowest_orderly_stop_seconds: float
    sends_unsure_and_repeated: int
    confirmed_by_send: int
    moves_found_by_sync: int
    accepted_from_sync: int
    course: list[RunSample]
    plan: Plan
    problems: list[str]
    evidence: list[dict[str, Any]]

    def unexplained(self, twice: Mapping[str, int]) -> int:
        """Return how many more requests were repeated than kills and faults explain."""
        after_answers = twice["answered"] + twice["in_flight"]
        return max(
            0,
            after_answers - self.explained_by_kills,
            sum(twice.values()) - self.explained_by_kills - self.explained_by_faults,
        )

    def violations(self) -> list[str]:
        """Return the broken promises and the problems of the run; none = all promises were kept."""
        counts = {name: getattr(self, name) for name in _ZEROS}
        counts |= {"dead": self.status["dead"], "still waiting": self.status["waiting"]}
        found = [f"{name.replace('_', ' ')} {n}" for name, n in counts.items() if n]
        requests, events = self.requests_sent_twice, self.requests_with_events_sent_twice
        if self.unexplained(requests) or self.unexplained(events):
            found.append(f"sent twice without a reason: {requests}, events: {events}")
        return found + self.problems

    def document(self) -> dict[str, Any]:
        """Return the verdict as the document that `--json` prints."""
        own = asdict(self)
        for name in ("status", "facts", "requests", "problems"):
            del own[name]
        return {
            "kept": not self.violations(),
            "violations": self.violations(),
            **{name: self.status[name] for name in SIX},
            **own,
            **self.facts,
            "events_doubled_without_reason": self.unexplained(self.requests_with_events_sent_twice),
            "requests": self.requests["total"],
            "requests_by_status": self.requests["by_status"],
            "requests_by_fault": self.requests["by_fault"],
            "skipped_by_reason": self.status["skipped_by_reason"],
            "dead_by_reason": self.status["dead_by_reason"],
        }


def judge(
    rig: Rig,
    plan: Plan,
    happened: list[Happening],
    participants: Participants,
    seconds: float,
) -> ChaosVerdict:
    """Compare the state after a run with the expected one, and return the verdict."""
    feeder, injector, watch, regulars, rewritten, course = participants
    status = read_status(rig.client, rig.settings)
    summary = rig.sandbox.get("summary")
    by_fault, repeats = summary["requests"]["by_fault"], summary["repeats"]
    held = rig.memberships()
    should = truth(happened) | regulars.truth() | rewritten.truth()
    differ = _differences(held, should)
    missing_in_log = missing_events(rig, happened)
    unknown = _not_delivered(rig, happened)
    synced = regulars.accepted()
    fed = status["accepted"] - synced - rewritten.accepted()
    doubted = [*(event for event, _ in unknown), *missing_in_log]
    suspects = list(dict.fromkeys([*differ, *(event.email for event in doubted)]))
    exported = sum(EXPORTED in names for names in differ.values())
    return ChaosVerdict(
        seconds=round(seconds, 1),
        status=status,
        lost=_unsettled(status) + max(0, feeder.confirmed - fed) + len(unknown),
        wrong_memberships=len(differ),
        overlaps_of_different_events=summary["overlaps"]["different"],
        wrong_in_rewritten_export=exported + _taken_out(rig, rewritten.stayers),
        events_missing_in_log=len(missing_in_log),
        requests_with_events_sent_twice=_by_fate(repeats["events"]),
        facts={
            "exports_written": rewritten.written,
            "exports_rewritten_while_read": rewritten.met,
            "user_objects_with_several_events": summary["repeats"]["users_with_several_events"],
        },
        requests=summary["requests"],
        requests_sent_twice=_sent_twice(repeats["users"].values()),
        explained_by_kills=injector.drains_hit,
        explained_by_faults=sum(by_fault.get(name, 0) for name in _MAYBE_APPLIED),
        sums_checked=watch.looks,
        disruptions={kind.value: count for kind, count in sorted(injector.done.items())},
        slowest_orderly_stop_seconds=max(injector.stop_seconds, default=0.0),
        sends_unsure_and_repeated=feeder.unsure,
        confirmed_by_send=feeder.confirmed,
        moves_found_by_sync=regulars.moves,
        accepted_from_sync=synced,
        course=course.samples,
        plan=plan,
        problems=_problems(participants),
        evidence=[_evidence(rig, email, happened, held, should) for email in suspects[:_SHOWN]],
    )


def _differences(
    held: Mapping[str, list[str]], should: Mapping[str, list[str]]
) -> dict[str, set[str]]:
    """Return the audiences in which Insider wrongly has or lacks a person, by email."""
    wrong = sorted(email for email in held.keys() | should if held.get(email) != should.get(email))
    return {email: set(held.get(email, ())) ^ set(should.get(email, ())) for email in wrong}


def _unsettled(status: Mapping[str, Any]) -> int:
    return abs(int(status["accepted"] - sum(status[name] for name in SIX[1:])))


def _problems(participants: Participants) -> list[str]:
    told = (participants.feeder, participants.injector)
    return [*participants.watch.broken, *(one for each in told for one in each.problems)]


def _sent_twice(users: Iterable[Mapping[str, int]]) -> dict[str, int]:
    paths = [_by_fate(path) for path in users]
    return {fate: sum(path[fate] for path in paths) for fate in _FATES}


def _by_fate(repeats: Mapping[str, int]) -> dict[str, int]:
    """Return how many requests had users or events that came again, by their earlier fate."""
    return {fate: repeats[f"doubled_{fate}"] for fate in _FATES}


def _taken_out(rig: Rig, emails: list[str]) -> int:
    """Return how many of the people were ever taken out by the sync of the export."""
    ledgers = ledgers_of(rig, emails)
    return sum(any(e.trigger == EXIT_TRIGGER for e in ledgers[email]) for email in emails)


def _not_delivered(rig: Rig, happened: list[Happening]) -> list[tuple[Happening, str]]:
    """Return the newest events, with the triggers for which the ledger lacks their delivery.

    A state event that told the same later stands for it.
    """
    newest = newest_of(happened)
    ledgers = ledgers_of(rig, sorted({email for email, _ in newest}))
    return [
        (event, trigger)
        for event in newest.values()
        for trigger in _TRIGGERS[event.is_exit]
        if not any(
            line.trigger == trigger
            and line.audience == event.audience
            and line.delivered_us >= event.time_us
            for line in ledgers[event.email]
        )
    ]


def _evidence(
    rig: Rig,
    email: str,
    happened: list[Happening],
    held: Mapping[str, list[str]],
    should: Mapping[str, list[str]],
) -> dict[str, Any]:
    return {
        "email": email,
        "partition": partition_of(key_of(email), rig.settings.redis.partitions),
        "digest": digest_of(key_of(email)).hex(),
        "holds": held.get(email, []),
        "should_hold": should.get(email, []),
        "events": [asdict(event) for event in happened if event.email == email],
        "ledger": [line._asdict() for line in ledgers_of(rig, [email])[email]],
        "at_the_sandbox": _profile(rig, email),
    }


def _profile(rig: Rig, email: str) -> Any:
    try:
        return rig.sandbox.get("profile", email=email)
    except httpx.HTTPStatusError:
        return None
