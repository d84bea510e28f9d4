"""Each problem, from the standing that makes it one."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segrelay.ops.state.background import LETTERS, RECORDS, Expiring, RetentionStanding, VerifyState
from segrelay.ops.state.partitions import Counts, Totals
from segrelay.ops.status.health import problems_of
from segrelay.ops.status.problems import ATTENTION, ILL
from segrelay.ops.status.standing import (
    AlertFailure,
    Condition,
    DestinationStanding,
    DifferingFile,
    JobStanding,
    RedisStanding,
    Standing,
    TriggerStanding,
    WaitingResponses,
)
from segrelay.producer.backfill.jobs import WatchState
from segrelay.producer.sync.store import Phase, Run
from segrelay.worker.contract.processes import (
    WORKER,
    WORKER_ENDED,
    Process,
    Receivers,
    RunningReceiver,
    Sample,
)
from segrelay.worker.contract.redis.claim import Loss
from segrelay.worker.contract.settings import Destination, Settings, Trigger
from segrelay.worker.contract.settings.sections import (
    BackfillWatch,
    NotifySettings,
    SyncSchedule,
    WebhookSettings,
)
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.contract.triggers import DESTINATION, JOB, TRIGGER, Pause

NOW = 1_800_000_000_000
NOW_SHOWN = "2027-01-15T08:00:00Z"
DAY_MS = 86_400_000
SETTINGS = Settings.empty(Path("/nowhere")).model_copy(
    update={"sync": {"vip": SyncSchedule(name="vip", audience="vip", every="15m")}}
)
WEBHOOK = WebhookSettings(secret=[Secret("literal", "an invented secret")])
ONE = Process("one", 7, WORKER, SETTINGS.fingerprint, version="1.0")
OTHER = replace(ONE, pid=8)
DIFFERS = {"enter.jsonnet": DifferingFile({"aa": ["one:7"], "": ["two:8"]}, NOW - 121_000)}


def standing(**changes: Any) -> Standing:
    """Return a standing in which all is well, but for what is changed."""
    known = {"settings": SETTINGS, "processes": [ONE], **destination(), **trigger()}
    return Standing(**(known | {"now_ms": NOW} | changes))


def destination(state: str = "ok", *, factor: float = 1.0) -> dict[str, Any]:
    condition = Condition(DESTINATION, state)
    one = DestinationStanding(condition, 25_000.0, factor, Totals().requests_of("insider"), 0)
    return {"destinations": {"insider": one}}


def trigger(
    state: str = "ok", *, is_lasting: bool = False, since_ms: int | None = None, **changes: Any
) -> dict[str, Any]:
    condition = Condition(TRIGGER, state, since_ms=since_ms, is_lasting=is_lasting)
    return {"triggers": {"vip": TriggerStanding(condition, "insider", **changes)}}


def expiring(what: str, subject: str) -> dict[str, Any]:
    """Return a standing in which three things will be dropped in two days."""
    one = Expiring(what, subject, 3, NOW - 83 * DAY_MS, NOW - 5 * DAY_MS, NOW + 2 * DAY_MS)
    return {"retention": RetentionStanding([one])}


def job(state: str) -> dict[str, Any]:
    return {"jobs": {"load": JobStanding(Condition(JOB, state, "why"), Counts(waiting=5))}}


def worker(**changes: Any) -> dict[str, Any]:
    return {"processes": [ONE, replace(ONE, **({"host": "two"} | changes))]}


def gone(ago_ms: int, ended_ago_ms: int | None = None) -> dict[str, Any]:
    """Return that the last worker was seen some time ago, and whether it ended in good order."""
    ended = {} if ended_ago_ms is None else {WORKER_ENDED: NOW - ended_ago_ms}
    return {"processes": [], "seen": {WORKER: NOW - ago_ms, **ended}}


def receives(**changes: Any) -> dict[str, Any]:
    """Return a receiver that runs beside the worker."""
    known = {"seen_ms": NOW, "config": SETTINGS.fingerprint}
    return receiver(running={"two:8": RunningReceiver(**(known | changes))})


def alerts_fail(*, tries: int) -> dict[str, Any]:
    url = Secret("env:CHAT_URL", "https://chat.example.com/hook")
    notify = operate(notify=NotifySettings(url=url))
    return notify | {"alerts_fail": AlertFailure(NOW - 60_000, tries, "it answered 404")}


DOUBTED = {"outcome": "doubted", "doubt": "200 are gone", "since_ms": 1_000, "gone": 200}


def sync(**changes: Any) -> dict[str, Any]:
    return {"syncs": {"vip": Run(**changes)}}


BEGAN_LATE = sync(
    phase=Phase.SCAN, begun_ms=NOW - 9_000, last={"begun_ms": NOW - 86_400_000, "outcome": "done"}
)


def watch(**changes: Any) -> dict[str, Any]:
    """Return a watch of files, and its state."""
    one = BackfillWatch(name="incoming", source="incoming/")
    backfill = SETTINGS.backfill.model_copy(update={"watch": {"incoming": one}})
    settings = SETTINGS.model_copy(update={"backfill": backfill})
    return {"settings": settings, "watches": {"incoming": WatchState(**changes)}}


def operate(**changes: Any) -> dict[str, Any]:
    """Return what `[operate]` says."""
    operate = SETTINGS.operate.model_copy(update=changes)
    return {"settings": SETTINGS.model_copy(update={"operate": operate})}


def samples(*counts: dict[str, int], every_ms: int = 60_000, quarantined: int = 0) -> list[Sample]:
    return [
        Sample(NOW - number * every_ms, {"insider": one}, 0 if number else quarantined)
        for number, one in enumerate(counts)
    ]


def receiver(**changes: Any) -> dict[str, Any]:
    producer = SETTINGS.producer.model_copy(update={"webhook": WEBHOOK})
    return {
        "settings": SETTINGS.model_copy(update={"producer": producer}),
        "receivers": Receivers(**({"seen_ms": NOW} | changes)),
    }


def going(count: int, stopped: Sequence[str] = (), *, until: int = 0) -> list[Sample]:
    """Return samples of ten seconds each, of which all but the newest say what was stopped."""
    counts = [{"insider": {"settled": count - n, "waits": 1}} for n in range(count)]
    return [
        Sample(NOW - n * 10_000, one, stopped=stopped if n >= until else ())
        for n, one in enumerate(counts)
    ]


def refused(status: int, *, ago_ms: int, **changes: Any) -> dict[str, Any]:
    """Return receivers that refused nine requests, and took some."""
    known = {"answers": {status: 9, 200: 4}, "taken_ms": NOW, "last_ms": {status: NOW - ago_ms}}
    return receiver(**(known | changes))


def redis(**changes: Any) -> dict[str, Any]:
    return {"redis": RedisStanding(**changes)}


def started(config: str) -> Settings:
    """Return a file that a process was started with."""
    return SETTINGS.model_copy(update={"fingerprint": config})


def late() -> dict[str, Any]:
    return trigger(oldest_live_ms=NOW - 600_000)


def vip(**changes: Any) -> Trigger:
    known = {"name": "vip", "destination": "insider", "audiences": ["vip"], "on": "enter"}
    return Trigger(**(known | {"template": "vip.jsonnet"} | changes))


def answered(*, response_stream: str, ago_ms: int | None) -> dict[str, Any]:
    """Return a trigger, and three answers to it that wait for its response stream."""
    one = vip(response_stream=response_stream)
    waits = WaitingResponses(3, oldest_ms=None if ago_ms is None else NOW - ago_ms)
    settings = SETTINGS.model_copy(update={"triggers": {"vip": one}})
    return {"settings": settings, "responses": waits}


def files_since(ago_ms: int) -> dict[str, DifferingFile]:
    return {"enter.jsonnet": DifferingFile({"aa": ["one:7"], "bb": ["two:7"]}, NOW - ago_ms)}


ALL_DEAD = samples({"dead|vip|refused": 30, "settled": 30}, {"settled": 0})
FEW_DEAD = samples(
    {"dead|vip|refused": 12, "delivered|vip": 900}, {"dead|vip|refused": 2, "delivered|vip": 0}
)
ALL_SKIPPED = samples(
    {"skipped|vip|asserted": 277, "delivered|vip": 5}, {"delivered|vip": 5, "settled": 5}
)
LATELY_SKIPPED = [*ALL_SKIPPED, replace(ALL_SKIPPED[1], at_ms=NOW - 3_600_000)]


def changed(*counts: dict[str, int]) -> list[Sample]:
    """Return samples of ten seconds each, in the last but two of which a template was changed."""
    found = samples(*counts, every_ms=10_000)
    return [
        replace(one, fingerprints={"vip": "old" if number >= len(found) - 2 else "new"})
        for number, one in enumerate(found)
    ]


SKIPPED_SINCE_A_CHANGE = changed(
    {"skipped|vip|asserted": 90, "delivered|vip": 905},
    {"skipped|vip|asserted": 60, "delivered|vip": 905},
    {"skipped|vip|asserted": 30, "delivered|vip": 905},
    {"delivered|vip": 900},
    {"delivered|vip": 100},
)
SKIPPED_AT_A_CHANGE = changed(
    {"skipped|vip|asserted": 888, "delivered|vip": 900},
    {"skipped|vip|asserted": 888, "delivered|vip": 900},
    {"delivered|vip": 900},
    {"delivered|vip": 100},
)
SOME_SKIPPED = samples({"skipped|vip|asserted": 277, "delivered|vip": 1}, {"settled": 0})
STILL = samples(*[{"waits": 9, "settled": 4, "waits|load": 5, "job|load": 3}] * 4)
WELL = standing()

CASES = [
    (standing(**sync(failures=1, refused=True)), "sync_fails", ILL),
    (standing(processes=[]), "no_worker", ILL),
    (standing(**gone(11_000)), "no_worker", ILL),
    (standing(**gone(21_000, ended_ago_ms=18_000)), "no_worker", ILL),
    (standing(**worker(config="other")), "worker_configuration", ILL),
    (standing(**worker(clock_ahead_seconds=-8)), "clock_differs", ATTENTION),
    (standing(**worker(clock_ahead_seconds=90)), "clock_differs", ILL),
    (standing(processes=[replace(ONE, clock_ahead_seconds=600), OTHER]), "clock_differs", ILL),
    (standing(**redis(clock_ahead_seconds=90.0)), "clock_differs", ILL),
    (standing(**destination(state="paused")), "destination_paused", ILL),
    (standing(**destination(state="broken")), "destination_broken", ILL),
    (standing(**destination(factor=0.4)), "destination_slowed", ATTENTION),
    (standing(**trigger(state="paused")), "trigger_paused", ILL),
    (standing(**trigger(state="stopped")), "trigger_stopped", ILL),
    (standing(**trigger(state="refused")), "trigger_refused", ATTENTION),
    (standing(**trigger(state="refused", is_lasting=True)), "trigger_refused", ILL),
    (standing(**trigger(state="waits", oldest_live_ms=NOW - 61_000)), "trigger_waits", ILL),
    (standing(**trigger(refused="line 1")), "template_refused", ILL),
    (standing(template_files=DIFFERS), "template_differs", ILL),
    (standing(**worker(refused_messages=3)), "messages_refused", ATTENTION),
    (standing(totals=Totals(orphans=Counter(old=3))), "orphaned", ILL),
    (standing(refused_destinations={"new": "old"}), "destination_refused", ILL),
    (standing(**trigger(oldest_live_ms=NOW - 61_000)), "live_late", ILL),
    (standing(**trigger(oldest_live_ms=NOW - 61_000), samples=going(15)), "live_late", ILL),
    (standing(samples=STILL), "live_late", ILL),
    (standing(**job("delivering"), samples=STILL), "job_stands_still", ILL),
    (standing(samples=ALL_DEAD), "dead_letters_grow", ILL),
    (standing(samples=FEW_DEAD), "dead_letters_grow", ATTENTION),
    (standing(samples=ALL_SKIPPED), "assert_skips_all", ILL),
    (standing(samples=LATELY_SKIPPED), "assert_skips_all", ATTENTION),
    (standing(samples=SKIPPED_SINCE_A_CHANGE), "assert_skips_all", ILL),
    (standing(samples=SKIPPED_AT_A_CHANGE), "assert_skips_all", ILL),
    (standing(verified={"insider": VerifyState(NOW, 20, 2)}), "insider_differs", ILL),
    (standing(verified={"insider": VerifyState(failures=3)}), "verify_fails", ATTENTION),
    (standing(**answered(response_stream="answers", ago_ms=901_000)), "responses_wait", ATTENTION),
    (standing(**job("aborted")), "abort_unfinished", ATTENTION),
    (standing(unreadable=["sync vip"]), "record_unreadable", ATTENTION),
    (standing(quarantined=2, samples=samples({}, {})), "quarantine_grows", ATTENTION),
    (standing(quarantined=20, samples=samples({}, {})), "quarantine_grows", ILL),
    (standing(**expiring(LETTERS, "insider")), "letters_expire", ATTENTION),
    (standing(**expiring(RECORDS, "")), "quarantine_expires", ATTENTION),
    (standing(**job("failed")), "job_failed", ILL),
    (standing(**job("interrupted")), "job_interrupted", ILL),
    (standing(**job("paused")), "job_paused", ATTENTION),
    (standing(**job("at its canary")), "job_at_canary", ATTENTION),
    (standing(**sync(phase=Phase.CONFIRM, last=DOUBTED)), "sync_waits", ILL),
    (standing(**sync(failures=1, problem="401")), "sync_fails", ATTENTION),
    (standing(**sync(failures=3, problem="401")), "sync_fails", ILL),
    (standing(**watch(failures=1, problem="403")), "watch_fails", ATTENTION),
    (standing(**watch(failures=3, problem="403")), "watch_fails", ILL),
    (standing(**watch(next_ms=NOW - 600_000)), "watch_overdue", ILL),
    (standing(**watch(refused={"a.csv": "no column."})), "watch_refused", ILL),
    (standing(**sync(next_ms=NOW - 600_000)), "sync_overdue", ILL),
    (standing(**sync(phase=Phase.SCAN, begun_ms=NOW - 3_700_000)), "sync_overdue", ILL),
    (standing(**BEGAN_LATE), "sync_overdue", ILL),
    (standing(processes=[replace(ONE, killed=2, killed_ms=NOW)]), "processes_killed", ATTENTION),
    (standing(processes=[replace(ONE, killed=193, killed_ms=NOW)]), "processes_killed", ILL),
    (standing(**redis(full="Redis is full")), "redis_full", ILL),
    (standing(**redis(used=75, most=100)), "redis_nearly_full", ATTENTION),
    (standing(**redis(weak=["appendonly is off: …"])), "redis_not_durable", ILL),
    (standing(**redis(weak=["appendfsync is everysec: …"])), "redis_not_durable", ATTENTION),
    (standing(**redis(failing=["the last snapshot failed"])), "redis_disk_fails", ILL),
    (standing(**redis(losses=[Loss(NOW - 9_000, NOW)])), "redis_emptied", ILL),
    (standing(**receiver(seen_ms=NOW - 31_000)), "receiver_down", ILL),
    (standing(**receives(clock_ahead_seconds=90.0)), "clock_differs", ILL),
    (standing(**receives(config="older")), "worker_configuration", ILL),
    (standing(processes=[replace(ONE, config="started")]), "worker_configuration", ATTENTION),
    (standing(**alerts_fail(tries=3)), "notify_fails", ATTENTION),
    (standing(**receiver(answers={401: 9}, since_taken={401: 9})), "receiver_unauthorized", ILL),
    (
        standing(**receiver(answers={401: 9, 200: 4}, since_taken={401: 2}, taken_ms=NOW - 60_000)),
        "receiver_unauthorized",
        ATTENTION,
    ),
    (standing(**receiver(answers={413: 1})), "receiver_too_large", ILL),
    (standing(**refused(413, ago_ms=3_600_000, since_taken={413: 1})), "receiver_too_large", ILL),
    (standing(**refused(413, ago_ms=19_000)), "receiver_too_large", ILL),
    (standing(**refused(413, ago_ms=20_000)), "receiver_too_large", ATTENTION),
    (standing(**refused(401, ago_ms=19_000)), "receiver_unauthorized", ATTENTION),
    (
        standing(**refused(503, ago_ms=90_000, since_taken={503: 1})),
        "receiver_unavailable",
        ATTENTION,
    ),
    (standing(**receiver(answers={503: 5}, since_taken={503: 5})), "receiver_unavailable", ILL),
    (
        standing(receivers=Receivers(event_ms=NOW - 9_000), **operate(events_within_seconds=5.0)),
        "no_events",
        ILL,
    ),
]


@pytest.mark.parametrize(("found", "name", "severity"), CASES)
def test_each_kind_of_trouble_is_one_problem_with_its_severity(
    found: Standing, name: str, severity: str
) -> None:
    names = [(one.name, one.severity) for one in problems_of(found)]

    assert (name, severity) in names
    assert all(one.message for one in problems_of(found))
    commands = [command for one in problems_of(found) for command in one.commands]
    assert all(re.match("segrelay (?!status$)", one) for one in commands)


QUIET = [
    WELL,
    standing(**trigger(oldest_live_ms=NOW - 59_000)),
    standing(template_files={"a": DifferingFile({"aa": [], "": []}, NOW - 119_000)}),
    standing(**trigger(versions=["v1", "v2"])),
    standing(samples=samples(*[{"waits": 9, "settled": n} for n in range(9, 0, -1)])),
    standing(samples=[replace(one, stopped=["trigger|vip"]) for one in STILL]),
    standing(samples=samples(*[{"waits": 0, "settled": 4}] * 9)),
    standing(samples=samples(*[{"dead|vip|refused": 30}] * 2)),
    standing(samples=SOME_SKIPPED),
    standing(**trigger("waits", since_ms=NOW - 9_000)),
    standing(quarantined=0, samples=samples({}, {})),
    # A deploy: the newest configuration that was started wins, and the others have their time.
    standing(**worker(config="other", begun_ms=NOW - 60_000), settings=started("other")),
    standing(**worker(begun_ms=NOW - 60_000), template_files=files_since(60_500)),
    # What could not go until lately needs its time.
    standing(**late(), samples=going(15, ["trigger|vip"], until=3)),
    standing(**late(), samples=going(15, ["destination|insider"], until=3)),
    standing(
        **late(), samples=[*going(3), *[replace(one, at_ms=one.at_ms - 90_000) for one in going(9)]]
    ),
    standing(**late(), samples=going(3)),
    standing(**late(), processes=[replace(ONE, begun_ms=NOW - 30_000)]),
    # Secondary problems.
    standing(**late(), **gone(9_000)),
    standing(**gone(9_000)),
    standing(**gone(19_000, ended_ago_ms=16_000)),
    standing(processes=[], **redis(uptime_seconds=9.0)),
    standing(**alerts_fail(tries=2)),
    standing(**sync(next_ms=NOW - 30_000)),
    standing(**redis(used=60, most=100)),
    standing(processes=[replace(ONE, killed=193, killed_ms=NOW - 900_000)]),
    standing(**receiver(seen_ms=NOW - 60_000), **redis(uptime_seconds=19.0)),
    standing(**refused(503, ago_ms=1_000), **redis(uptime_seconds=19.0)),
    standing(receivers=Receivers(seen_ms=1)),
    standing(**receiver(seen_ms=0)),
    standing(**receiver(answers={200: 5}, taken_ms=1, event_ms=1)),
    standing(**refused(401, ago_ms=20_000)),
    standing(**refused(503, ago_ms=20_000)),
    standing(**answered(response_stream="answers", ago_ms=899_000)),
    standing(**answered(response_stream="answers", ago_ms=None)),
    standing(**answered(response_stream="", ago_ms=901_000)),
    standing(**job("delivering")),
]


@pytest.mark.parametrize("found", QUIET)
def test_what_is_as_usual_is_no_problem(found: Standing) -> None:
    assert problems_of(found) == []


@pytest.mark.parametrize(
    "cause",
    [
        {"seen_ms": NOW - 31_000},
        {"answers": {401: 9}, "since_taken": {401: 9}},
        {"back_ms": NOW - 3_000},
    ],
)
def test_that_no_event_comes_is_not_told_beside_its_cause(cause: dict[str, Any]) -> None:
    known = receiver(event_ms=NOW - 60_000, **cause)
    quiet = SETTINGS.operate.model_copy(update={"events_within_seconds": 5.0})
    settings = known["settings"].model_copy(update={"operate": quiet})

    names = [one.name for one in problems_of(standing(**known | {"settings": settings}))]

    assert "no_events" not in names


def test_who_runs_an_older_configuration_is_named_by_whoever_looks() -> None:
    both = worker(config="other", begun_ms=NOW - 121_000)

    for settings in (SETTINGS, started("other")):
        (found,) = problems_of(standing(**both, settings=settings))
        assert found.name == "worker_configuration"
        assert found.message.endswith("which was started last: one:7. Restart them")
        assert found.since_ms == NOW - 121_000


SAMPLES = {"requests": 0, "asked|ms": 0, "settled": 0, "waits": 9}


@pytest.mark.parametrize(
    ("newest", "why"),
    [
        ({"requests": 15_000, "settled": 9}, "its rate is used up (25,000 of 25,000"),
        ({}, "the workers hang: for 12 s nothing was settled"),
        ({"requests": 3, "asked|ms": 15_000, "settled": 9}, "an answer takes 5.0 s"),
        ({"requests": 300, "asked|ms": 3_000, "settled": 9}, "the workers are too few"),
    ],
)
def test_what_makes_live_deliveries_late_is_said(newest: dict[str, int], why: str) -> None:
    counts = [SAMPLES | newest, *[SAMPLES] * 14]
    found = standing(**late(), samples=samples(*counts, every_ms=12_000))

    told = [one.message for one in problems_of(found) if one.name == "live_late"]

    assert why in " ".join(told)


def test_a_problem_that_grows_began_when_it_began() -> None:
    grown = [{"dead|vip|refused": 30}] * 3 + [{"dead|vip|refused": 0}] * 4

    (told,) = problems_of(standing(samples=samples(*grown, every_ms=10_000)))

    assert told.since_ms == NOW - 30_000


def test_the_ill_problems_stand_first() -> None:
    both = standing(**destination(factor=0.4), **redis(full="Redis is full"))

    assert [one.severity for one in problems_of(both)] == [ILL, ATTENTION]


LASTING = trigger("waits", since_ms=NOW - 11_000)
LATE_AND_PAUSED = trigger(oldest_live_ms=NOW - 61_000) | destination(state="paused")
EMPTIED = redis(losses=[Loss(NOW - 9_000, NOW - 9_000)])


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (standing(**LASTING), "trigger_waits"),
        (standing(**LASTING, **destination("broken")), "destination_broken"),
        (standing(**LATE_AND_PAUSED), "destination_paused"),
        # Workers have a moment to find a Redis that came back empty.
        (standing(processes=[], **EMPTIED), "redis_emptied"),
    ],
)
def test_a_problem_is_not_told_beside_its_cause(found: Standing, name: str) -> None:
    assert [one.name for one in problems_of(found)] == [name]


@pytest.mark.parametrize("state", ["waits", "refused"])
def test_that_nothing_goes_through_began_with_the_first_failure(state: str) -> None:
    found = standing(**trigger(state, since_ms=NOW - 700_000, oldest_live_ms=NOW - 61_000))

    [problem] = problems_of(found)

    assert problem.since_ms == NOW - 700_000


KNOWN = destination()["destinations"]["insider"]
REFUSED = replace(KNOWN, condition=Condition(DESTINATION, "paused", "access_refused", "401"))
HELD = {"counts": Counts(waiting=1_200, dead=30), "quarantined": 4}
LOW_RATE = [SAMPLES | {"requests": 6, "settled": 9}, *[SAMPLES] * 14]
BEFORE = {"delivered|vip": 1_000_000, "settled": 1_000_000}
NEW_ONES_DIE = samples(BEFORE | {"dead|vip|refused": 30, "settled": 1_000_030}, BEFORE)


def killed_by_its_template() -> dict[str, Any]:
    """Return a trigger that has paused itself, because its template killed everything."""
    why = Pause("everything dies of one cause (3f2a91c0): no.", "segrelay", edition="ab")
    one = TriggerStanding(Condition.of_pause(TRIGGER, why), "insider")
    settings = SETTINGS.model_copy(update={"triggers": {"vip": vip()}})
    return {"triggers": {"vip": one}, "settings": settings}


def of_one_name() -> dict[str, Any]:
    """Return a destination and a paused trigger that have the same name."""
    own = Destination(name="vip", base_url="https://example.com", api="http", rate="1/min")
    both = {"destinations": {"vip": own}, "triggers": {"vip": vip(destination="vip")}}
    return trigger(state="paused") | {"settings": SETTINGS.model_copy(update=both)}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            standing(**HELD, **redis(full="Redis is full.")),
            [
                "1,200 waiting deliveries",
                "30 dead letters (dlq replay, dlq discard) and 4 quarantined",
            ],
        ),
        (
            standing(**redis(weak=["It loses events. Set appendfsync."])),
            ["appendfsync\n→ segrelay"],
        ),
        (
            standing(**redis(losses=[Loss(NOW - 9_000, NOW, "10.0.0.7:6379")])),
            [f"ill: redis_emptied since {NOW_SHOWN}: The node 10.0.0.7:6379 of Redis came back"],
        ),
        (standing(destinations={"insider": REFUSED}), [".env", "restart the workers"]),
        (
            standing(**killed_by_its_template()),
            [
                "everything dies of one cause (3f2a91c0): no. Correct its template",
                "\n→ segrelay template check vip.jsonnet\n→ segrelay resume vip",
                "\n→ segrelay dlq replay --trigger vip",
            ],
        ),
        (standing(**of_one_name()), ["\n→ segrelay resume trigger:vip"]),
        (
            standing(
                **late(),
                destinations={"insider": replace(KNOWN, rate=12.0)},
                samples=samples(*LOW_RATE, every_ms=12_000),
            ),
            ["its rate is used up (10 of 12"],
        ),
        (standing(samples=NEW_ONES_DIE), ["ill: dead_letters_grow vip", "30 of its last 30"]),
        (
            standing(**answered(response_stream="answers", ago_ms=901_000)),
            ["of 3 responses for Lytics", "has waited for 15 minutes", "\n→ segrelay worker"],
        ),
    ],
)
def test_the_line_names_the_cause_and_what_mends_it(found: Standing, words: list[str]) -> None:
    [problem] = problems_of(found)

    assert [word for word in words if word not in "\n".join(problem.lines)] == []
