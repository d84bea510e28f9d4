"""What a run came to: every count, and everything that must not be, with what led to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import httpx

from ops.chaos.participants import Participants
from ops.chaos.plan import Plan
from ops.invented import Happening, newest_of, truth
from ops.rig import DESTINATION, Rig
from ops.state.ledger import LedgerLine, Names, read_records
from ops.state.status import read_status
from worker.contract.keys import PartitionKeys, digest_of, partition_of

SIX: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")
_TRIGGERS: Final[Mapping[bool, tuple[str, ...]]] = {False: ("enter",), True: ("exit", "exit-event")}
_SHOWN: Final = 20
_MAYBE_APPLIED: Final = ("lost_answer", "late", "error.500", "error.502", "error.503")


@dataclass(frozen=True, slots=True)
class ChaosVerdict:
    """The report.

    Args:
        lost: Deliveries that were accepted and came to no end, and newest events that the ledger
            does not know as delivered.
        sent_twice: Requests of which something was sent again, by what had become of them.
        kills_explain: Drains that could be under way in what was killed or stopped.
        faults_explain: Requests that got no sure answer.
        moves: How often somebody joined or left the audience that a sync keeps.
        synced: Deliveries that the sync published.
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
    problems: list[str] = field(default_factory=list)
    evidence: list[dict[str, Any]] = field(default_factory=list)

    @property
    def explained(self) -> bool:
        """Say whether what was sent twice has its reasons."""
        after_answers = self.sent_twice["answered"] + self.sent_twice["in_flight"]
        return (
            after_answers <= self.kills_explain
            and sum(self.sent_twice.values()) <= self.kills_explain + self.faults_explain
        )

    def violations(self) -> list[str]:
        """Return what must not be; none = all promises were kept."""
        found = [f"{name} {n}" for name, n in self._zeros().items() if n]
        if not self.explained:
            found.append(f"sent twice without a reason: {self.sent_twice}")
        return found + self.problems

    def _zeros(self) -> dict[str, int]:
        return {
            "lost": self.lost,
            "wrong memberships": self.wrong,
            "overlaps of different events": self.overlaps,
            "dead": self.status["dead"],
            "still waiting": self.status["waiting"],
        }

    def document(self) -> dict[str, Any]:
        """Return it for machines."""
        requests = self.sandbox["requests"]
        return {
            "kept": not self.violations(),
            "violations": self.violations(),
            "seconds": round(self.seconds, 1),
            **{name: self.status[name] for name in SIX},
            "lost": self.lost,
            "wrong_memberships": self.wrong,
            "overlaps_of_different_events": self.overlaps,
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
    """Compare what there is with what must be."""
    feeder, injector, watch, regulars = participants
    status = read_status(rig.client, rig.settings)
    summary = rig.sandbox.get("summary")
    held, should = rig.memberships(), truth(happened) | regulars.truth()
    wrong = sorted(email for email in held.keys() | should if held.get(email) != should.get(email))
    unsettled = status["accepted"] - sum(status[name] for name in SIX[1:])
    unknown = _not_delivered(rig, happened)
    synced = regulars.accepted()
    missing = max(0, feeder.confirmed - (status["accepted"] - synced))
    suspects = list(dict.fromkeys([*wrong, *(event.email for event, _ in unknown)]))
    return ChaosVerdict(
        plan=plan,
        seconds=seconds,
        status=status,
        confirmed=feeder.confirmed,
        lost=abs(unsettled) + missing + len(unknown),
        wrong=len(wrong),
        overlaps=summary["overlaps"]["different"],
        sent_twice=_sent_twice(summary["repeats"]["users"].values()),
        kills_explain=injector.drains_hit,
        faults_explain=sum(summary["requests"]["by_fault"].get(n, 0) for n in _MAYBE_APPLIED),
        sums_checked=watch.looks,
        sandbox=summary,
        disruptions={disruption.value: n for disruption, n in sorted(injector.done.items())},
        stop_seconds=injector.stop_seconds,
        sends_unsure=feeder.unsure,
        moves=regulars.moves,
        synced=synced,
        problems=[*watch.broken, *feeder.problems, *injector.problems],
        evidence=[_evidence(rig, email, happened, held, should) for email in suspects[:_SHOWN]],
    )


def _sent_twice(users: Iterable[Mapping[str, int]]) -> dict[str, int]:
    users = list(users)
    return {
        fate: sum(path[f"doubled_{fate}"] for path in users)
        for fate in ("answered", "in_flight", "unanswered")
    }


def _not_delivered(rig: Rig, happened: list[Happening]) -> list[tuple[Happening, str]]:
    """Return the newest events that the ledger does not know as delivered, by trigger.

    A state event that told the same later stands for it.
    """
    newest = newest_of(happened)
    ledgers = _ledgers(rig, sorted({email for email, _ in newest}))
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


def _ledgers(rig: Rig, emails: list[str]) -> dict[str, list[LedgerLine]]:
    names = Names(rig.client)
    partitions: dict[int, list[str]] = {}
    for email in emails:
        partition = partition_of(_key(email), rig.settings.redis.partitions)
        partitions.setdefault(partition, []).append(email)
    found: dict[str, list[LedgerLine]] = {}
    for partition, own in partitions.items():
        place = PartitionKeys(DESTINATION, partition)
        records = read_records(rig.client, place, [digest_of(_key(email)) for email in own])
        found |= {e: list(names.lines(record)) for e, record in zip(own, records, strict=True)}
    return found


def _key(email: str) -> str:
    return f"email:{email}"


def _evidence(
    rig: Rig,
    email: str,
    happened: list[Happening],
    held: Mapping[str, list[str]],
    should: Mapping[str, list[str]],
) -> dict[str, Any]:
    return {
        "email": email,
        "partition": partition_of(_key(email), rig.settings.redis.partitions),
        "digest": digest_of(_key(email)).hex(),
        "holds": held.get(email, []),
        "should_hold": should.get(email, []),
        "events": [asdict(event) for event in happened if event.email == email],
        "ledger": [asdict(line) for line in _ledgers(rig, [email])[email]],
        "at_the_sandbox": _profile(rig, email),
    }


def _profile(rig: Rig, email: str) -> Any:
    try:
        return rig.sandbox.get("profile", email=email)
    except httpx.HTTPStatusError:
        return None
