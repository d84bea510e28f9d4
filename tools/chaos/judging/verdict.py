"""The verdict on a run: all counts, and the broken promises with their evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import httpx

from segrelay.ops.demo.rig import Rig
from segrelay.ops.metrics.comparison import differences, parse_metrics
from segrelay.ops.metrics.page import MetricsPage
from segrelay.ops.status.status import read_status
from segrelay.sandbox.people import Happening, newest_of, truth
from segrelay.worker.contract.keys import digest_of, partition_of
from tools.chaos.changes import aborted_jobs, rewritten_file
from tools.chaos.changes.histories import Histories
from tools.chaos.changes.renamed_audience import NEW, OLD, names_of
from tools.chaos.changes.rewritten_file import EXIT_TRIGGER
from tools.chaos.course import RunSample
from tools.chaos.judging.event_log import missing_events
from tools.chaos.judging.ledgers import key_of, ledgers_of
from tools.chaos.participants import Participants
from tools.chaos.plan import Plan

SIX: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")
_TRIGGERS: Final[Mapping[bool, tuple[str, ...]]] = {False: ("enter",), True: ("exit", "exit-event")}
_SHOWN: Final = 20
_FATES: Final = ("answered", "in_flight", "unanswered")
_MAYBE_APPLIED: Final = ("lost_answer", "late", "error.500", "error.502", "error.503")


@dataclass(frozen=True, slots=True)
class ChaosVerdict:
    """The report on a chaos run.

    Args:
        lost: Deliveries that were accepted and came to no end, and newest events that the ledger
            does not know as delivered.
        sent_twice: Requests of which something was sent again, by what had become of them.
        kills_explain: Drains that could be under way in what was killed or stopped.
        faults_explain: Requests that got no sure answer.
        moves: The number of people who joined or left the synced audience.
        synced: Deliveries that the sync published.
        after_abort: Deliveries of aborted jobs that were accepted or delivered after the abort.
        wrong_renamed: People who are wrong in the renamed audience, under either name.
        wrong_exported: People who are wrong in the audience of the export that was rewritten, or
            were taken out of it at any time though every version has them.
        events_missing: Newest events that Insider's log does not have.
        events_twice: Requests of which an event was logged again, by what had become of them.
        facts: Counts that say whether the histories happened; none of them is good or bad.
        course: Deliveries a second and memory, at each tenth of the disruptions and at the end.
        evidence: About each wrong profile.
    """

    plan: Plan
    seconds: float
    status: dict[str, Any]
    confirmed: int
    lost: int
    wrong: int
    overlaps: int
    sent_twice: dict[str, int]
    kills_explain: int
    faults_explain: int
    sums_checked: int
    sandbox: dict[str, Any]
    disruptions: dict[str, int]
    stop_seconds: list[float]
    sends_unsure: int
    moves: int
    synced: int
    after_abort: int
    wrong_renamed: int
    wrong_exported: int
    events_missing: int
    events_twice: dict[str, int]
    facts: dict[str, int]
    course: list[RunSample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    evidence: list[dict[str, Any]] = field(default_factory=list)

    @property
    def explained(self) -> bool:
        """Say whether kills and faults explain everything that was sent twice."""
        return not any(map(self.unexplained, (self.sent_twice, self.events_twice)))

    def unexplained(self, twice: Mapping[str, int]) -> int:
        """Return how many more requests were repeated than kills and faults explain."""
        after_answers = twice["answered"] + twice["in_flight"]
        return max(
            0,
            after_answers - self.kills_explain,
            sum(twice.values()) - self.kills_explain - self.faults_explain,
        )

    def violations(self) -> list[str]:
        """Return the broken promises and the problems of the run; none = all promises were kept."""
        found = [f"{name} {n}" for name, n in self._zeros().items() if n]
        if not self.explained:
            found.append(
                f"sent twice without a reason: {self.sent_twice}, events: {self.events_twice}"
            )
        return found + self.problems

    def _zeros(self) -> dict[str, int]:
        return {
            "lost": self.lost,
            "wrong memberships": self.wrong,
            "overlaps of different events": self.overlaps,
            "after an abort": self.after_abort,
            "wrong in the renamed audience": self.wrong_renamed,
            "wrong in the rewritten export": self.wrong_exported,
            "events missing in the log": self.events_missing,
            "dead": self.status["dead"],
            "still waiting": self.status["waiting"],
        }

    def document(self) -> dict[str, Any]:
        """Return the verdict as the document that `--json` prints."""
        requests = self.sandbox["requests"]
        return {
            "kept": not self.violations(),
            "violations": self.violations(),
            "seconds": round(self.seconds, 1),
            **{name: self.status[name] for name in SIX},
            "lost": self.lost,
            "wrong_memberships": self.wrong,
            "overlaps_of_different_events": self.overlaps,
            "delivered_after_an_abort": self.after_abort,
            "wrong_in_renamed_audience": self.wrong_renamed,
            "wrong_in_rewritten_export": self.wrong_exported,
            "events_missing_in_log": self.events_missing,
            "events_doubled_without_reason": self.unexplained(self.events_twice),
            "requests_with_events_sent_twice": self.events_twice,
            **self.facts,
            "requests": requests["total"],
            "requests_by_status": requests["by_status"],
            "requests_by_fault": requests["by_fault"],
            "requests_sent_twice": self.sent_twice,
            "explained_by_kills": self.kills_explain,
            "explained_by_faults": self.faults_explain,
            "sums_checked": self.sums_checked,
            "disruptions": self.disruptions,
            "slowest_orderly_stop_seconds": max(self.stop_seconds, default=0.0),
            "sends_unsure_and_repeated": self.sends_unsure,
            "confirmed_by_send": self.confirmed,
            "moves_found_by_sync": self.moves,
            "accepted_from_sync": self.synced,
            "skipped_by_reason": self.status["skipped_by_reason"],
            "dead_by_reason": self.status["dead_by_reason"],
            "course": [asdict(sample) for sample in self.course],
            "plan": asdict(self.plan),
            "evidence": self.evidence,
        }


def judge(
    rig: Rig,
    plan: Plan,
    happened: list[Happening],
    participants: Participants,
    seconds: float,
) -> ChaosVerdict:
    """Compare the state after a run with the expected one, and return the verdict."""
    feeder, _, _, regulars, histories, _ = participants
    status = read_status(rig.client, rig.settings)
    summary = rig.sandbox.get("summary")
    everybody = rig.memberships()
    after_abort, undelivered = histories.aborted.judged(everybody)
    held = {e: names for e, names in everybody.items() if names != [aborted_jobs.AUDIENCE]}
    happened = histories.renamed.in_new_words(happened)
    should = truth(happened) | regulars.truth() | histories.rewritten.truth()
    differ = _differences(held, should)
    missing_in_log = missing_events(rig, happened)
    unknown = _not_delivered(rig, happened)
    synced = regulars.accepted()
    fed = status["accepted"] - synced - histories.published()
    lost = _unsettled(status) + max(0, feeder.confirmed - fed) + undelivered + len(unknown)
    doubted = [*(event for event, _ in unknown), *missing_in_log]
    suspects = list(dict.fromkeys([*differ, *(event.email for event in doubted)]))
    exported = sum(rewritten_file.AUDIENCE in names for names in differ.values())
    exported += _taken_out(rig, histories.rewritten.stayers)
    return ChaosVerdict(
        plan=plan,
        seconds=seconds,
        status=status,
        lost=lost,
        wrong=len(differ),
        synced=synced,
        after_abort=after_abort,
        wrong_renamed=sum(bool(names & {OLD, NEW}) for names in differ.values()),
        wrong_exported=exported,
        events_missing=len(missing_in_log),
        **_of_sandbox(summary),
        facts=_facts(histories, summary),
        **_of_participants(participants),
        problems=[*_problems(participants), *_metrics_that_differ(rig, status)],
        evidence=[_evidence(rig, email, happened, held, should) for email in suspects[:_SHOWN]],
    )


def _differences(
    held: Mapping[str, list[str]], should: Mapping[str, list[str]]
) -> dict[str, set[str]]:
    """Return the audiences in which Insider wrongly has or lacks a person, by email."""
    wrong = sorted(email for email in held.keys() | should if held.get(email) != should.get(email))
    return {email: set(held.get(email, ())) ^ set(should.get(email, ())) for email in wrong}


def _of_participants(participants: Participants) -> dict[str, Any]:
    """Return the fields of a verdict that the participants have counted."""
    feeder, injector, watch, regulars, _, course = participants
    return {
        "confirmed": feeder.confirmed,
        "kills_explain": injector.drains_hit,
        "sums_checked": watch.looks,
        "disruptions": {kind.value: count for kind, count in sorted(injector.done.items())},
        "stop_seconds": injector.stop_seconds,
        "sends_unsure": feeder.unsure,
        "moves": regulars.moves,
        "course": course.samples,
    }


def _of_sandbox(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a verdict that come from the sandbox's summary."""
    by_fault, repeats = summary["requests"]["by_fault"], summary["repeats"]
    return {
        "overlaps": summary["overlaps"]["different"],
        "sent_twice": _sent_twice(repeats["users"].values()),
        "faults_explain": sum(by_fault.get(name, 0) for name in _MAYBE_APPLIED),
        "events_twice": _by_fate(repeats["events"]),
        "sandbox": summary,
    }


def _unsettled(status: Mapping[str, Any]) -> int:
    return abs(int(status["accepted"] - sum(status[name] for name in SIX[1:])))


def _facts(histories: Histories, summary: Mapping[str, Any]) -> dict[str, int]:
    """Return counts that show whether the histories took place."""
    return {
        "jobs_aborted": len(histories.aborted.jobs),
        "accepted_of_aborted_jobs": sum(job.accepted for job in histories.aborted.jobs),
        "audiences_renamed": int(histories.renamed.is_renamed),
        "moved_by_the_renaming": histories.renamed.published,
        "exports_written": histories.rewritten.written,
        "exports_rewritten_while_read": histories.rewritten.met,
        "user_objects_with_several_events": summary["repeats"]["users_with_several_events"],
    }


def _problems(participants: Participants) -> list[str]:
    told = (participants.feeder, participants.injector, participants.histories)
    return [*participants.watch.broken, *(one for each in told for one in each.problems)]


def _metrics_that_differ(rig: Rig, status: Mapping[str, Any]) -> list[str]:
    text = MetricsPage(rig.client, rig.settings).text().decode()
    return [f"metrics and status: {one}" for one in differences(parse_metrics(text), status)]


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
            and line.audience in names_of(event.audience)
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
        "ledger": [asdict(line) for line in ledgers_of(rig, [email])[email]],
        "at_the_sandbox": _profile(rig, email),
    }


def _profile(rig: Rig, email: str) -> Any:
    try:
        return rig.sandbox.get("profile", email=email)
    except httpx.HTTPStatusError:
        return None
