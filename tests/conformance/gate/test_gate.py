"""What every gate does."""

import pytest

from segrelay.worker.adapters.redis.gate import forget_rates
from segrelay.worker.core.gate import APART, SEVERAL, Closed, Open, SendTime
from segrelay.worker.core.verdicts import Accepted, BodyRefused, SlowDown
from tests.conformance.gate.failing import FAILED, REFUSED, break_it
from tests.conformance.gates import destination_of


def test_the_first_slot_is_now(bench):
    send_time = bench.book()

    assert send_time == SendTime(bench.now_ms, bench.now_ms, {"vip": 0}, probe=False, incident=0)


def test_a_slot_beyond_the_horizon_is_not_booked(bench):
    for _ in range(7):
        bench.book()

    closed = bench.book(horizon_seconds=0.05)
    afterwards = bench.book()

    assert isinstance(closed, Closed)
    assert (closed.state, closed.reason) == ("ok", "rate")
    assert closed.until_ms == pytest.approx(bench.now_ms + 52.694, abs=0.01)
    assert afterwards.at_ms == pytest.approx(bench.now_ms + 102.694, abs=0.01)


@pytest.mark.parametrize(
    ("limit", "at_once", "seconds"),
    [
        (0.5, 1, 122),
        (1, 1, 61),
        (1.9, 1, 61),
        (2, 1, 60),
        (3, 1, 30),
        (99, 1, 61 / 99),
        (100, 2, 61 / 99),
        (600, 7, 61 / 594),
        (25_000, 51, 61 / 24_950),
    ],
)
def test_so_many_go_at_once_and_then_one_in_so_many_seconds(bench, limit, at_once, seconds):
    gate = bench.gate_with(rate=limit)

    times = [bench.book(gate=gate, horizon_seconds=1e4).at_ms for _ in range(at_once + 2)]

    assert sum(at_ms <= bench.now_ms for at_ms in times) == at_once
    assert times[-1] - times[-2] == pytest.approx(1_000 * seconds, abs=1)


def test_backfill_books_nothing_while_a_live_request_waits(bench):
    for _ in range(7):
        bench.book(kind="backfill")
    live = bench.book()

    closed = bench.book(kind="backfill")
    bench.pass_seconds(0.11)
    afterwards = bench.book(kind="backfill")

    assert live.at_ms > bench.now_ms - 110
    assert closed == Closed("ok", "live_first", live.at_ms)
    assert isinstance(afterwards, SendTime)


def test_a_live_request_that_found_no_slot_keeps_backfill_away(bench):
    for _ in range(9):
        bench.book(kind="backfill")
    bench.book(horizon_seconds=0.0)

    closed = bench.book(kind="backfill")
    bench.pass_seconds(2.0)
    afterwards = bench.book(kind="backfill")

    assert closed.reason == "live_first"
    assert isinstance(afterwards, SendTime)


def test_of_two_rates_the_lower_holds_for_a_while(bench):
    slow = bench.gate_with(rate=60.0)
    bench.book(gate=slow)

    spaced = [bench.book(horizon_seconds=60.0).at_ms for _ in range(2)]
    bench.pass_seconds(121)
    bench.book()
    bench.pass_seconds(1)
    again = [bench.book().at_ms for _ in range(7)]

    assert spaced[1] - spaced[0] > 1000
    assert len(set(again)) == 1


def test_a_rate_that_was_raised_holds_once_a_worker_has_started_with_it(bench):
    slow = bench.gate_with(rate=60.0)
    bench.book(gate=slow)

    forget_rates(bench.client, [destination_of(bench.host)])
    raised = [bench.book(horizon_seconds=60.0).at_ms for _ in range(2)]
    bench.book(gate=slow, horizon_seconds=60.0)
    again = [bench.book(horizon_seconds=60.0).at_ms for _ in range(2)]

    assert raised[1] - raised[0] < 200
    assert again[1] - again[0] > 1000


def test_successes_of_a_trigger_are_counted_over_all(bench):
    bench.send(Accepted(), delivered=1000)
    bench.send(Accepted(), delivered=20, trigger="other")

    assert bench.book(gate=bench.gate_with()).successes == {"vip": 1000}


def test_a_429_halves_the_rate_once_an_incident(bench):
    send_times = [bench.book() for _ in range(5)]
    states = [bench.report(send_time, SlowDown()) for send_time in send_times]

    assert {state.state for state in states} == {"slowed"}
    assert bench.fields()["factor"] == "500000"


def test_a_429_after_the_lowering_closes_longer_and_longer(bench):
    bench.send(SlowDown())

    waits = []
    for _ in range(7):
        bench.send(SlowDown())
        closed = bench.book()
        assert (closed.state, closed.reason) == ("slowed", "too_many_requests")
        waits.append((closed.until_ms - bench.now_ms) / 1000)

    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert bench.fields()["factor"] == "500000"


def test_after_a_closing_one_goes_first_and_success_opens(bench):
    bench.send(SlowDown())
    bench.send(SlowDown())
    bench.pass_seconds(1)

    probe = bench.book()
    other = bench.book()
    bench.report(probe, Accepted())
    afterwards = bench.book()

    assert probe.probe
    assert (other.state, other.reason) == ("slowed", "probing")
    assert isinstance(afterwards, SendTime)
    assert not afterwards.probe


def test_a_late_success_does_not_open_what_a_429_has_closed(bench):
    early = bench.book()
    bench.send(SlowDown())
    bench.send(SlowDown())

    bench.report(early, Accepted())

    assert isinstance(bench.book(), Closed)


@pytest.mark.parametrize(("seconds", "expected"), [(17.5, 17.5), (86_400.0, 900.0)])
def test_retry_after_closes_until_then_whatever_was_booked_before(bench, seconds, expected):
    early = bench.book()
    bench.send(SlowDown())
    between = bench.book()

    bench.report(early, SlowDown(retry_after_seconds=seconds))
    bench.report(between, Accepted())

    closed = bench.book()

    assert (closed.until_ms - bench.now_ms) / 1000 == expected


def test_the_rate_rises_slowly_and_short_of_the_one_that_failed(bench):
    bench.send(SlowDown())
    bench.send(Accepted())
    bench.pass_seconds(2)
    bench.send(SlowDown())
    factors = {}
    for second in range(5, 300, 5):
        bench.pass_seconds(5)
        bench.send(Accepted())
        factors[second] = bench.factor

    assert factors[55] == 350_000
    assert 350_000 < factors[70] < 450_000
    assert factors[110] == 450_000
    assert factors[130] < 550_000
    assert factors[200] < 850_000
    assert factors[275] == 1_000_000
    assert bench.send(Accepted()).state == "ok"


@pytest.mark.parametrize("is_busy", [True, False])
def test_five_minutes_after_the_last_429_the_limit_is_used_again(bench, is_busy):
    bench.gate = bench.gate_with(rate=120.0)
    for _ in range(30):
        bench.send(SlowDown())
        bench.pass_seconds(2)
        bench.send(Accepted())
    lowest = bench.factor
    for _ in range(150 if is_busy else 0):
        bench.pass_seconds(2)
        send_time = bench.book()
        if isinstance(send_time, SendTime):
            bench.report(send_time, Accepted())
    bench.pass_seconds(0 if is_busy else 300)

    send_times = [bench.book(horizon_seconds=61.0) for _ in range(108)]

    assert lowest <= 30_000
    assert send_times[-1].at_ms <= bench.now_ms + 60_000
    assert bench.report(send_times[0], Accepted()).state == "ok"


def test_a_429_after_a_long_rest_lowers_from_where_the_rate_has_risen_to(bench):
    bench.send(SlowDown())
    bench.pass_seconds(400)

    bench.send(SlowDown())

    assert bench.factor == 500_000


@pytest.mark.parametrize("seconds", [0.3, 300, 86_400])
def test_a_clock_that_was_set_back_keeps_nothing_closed_for_longer(bench, seconds):
    break_it(bench, "vip", "other")
    bench.pass_seconds(-seconds)

    closed = bench.book()
    bench.pass_seconds(1)

    assert closed == Closed("broken", "failing", bench.now_ms, "503")
    assert bench.book().probe


def test_a_clock_that_was_set_back_leaves_the_slots_where_they_were_among_themselves(bench):
    before = [bench.book() for _ in range(8)][-1].at_ms - bench.now_ms
    bench.pass_seconds(-300)

    after = bench.book().at_ms - bench.now_ms

    assert after == pytest.approx(before + 102.694, abs=0.01)
    bench.send(REFUSED)
    assert bench.status().since_ms == bench.now_ms


def test_a_clock_that_was_set_back_lengthens_no_slow_down(bench):
    bench.send(SlowDown())
    bench.pass_seconds(200)
    bench.send(Accepted())
    bench.pass_seconds(-3600)

    bench.pass_seconds(80)

    assert bench.send(Accepted()).state == "ok"


def test_a_clock_that_was_set_back_lengthens_no_probe_of_a_trigger(bench):
    bench.run(bench.gate.resume("vip"))
    bench.book()
    bench.pass_seconds(-3600)

    closed = bench.book()
    bench.pass_seconds(5)

    assert closed.reason == "probing"
    assert bench.book().probe


def test_several_triggers_share_a_slot_and_each_has_its_own_successes(bench):
    both = ("vip", "other")
    bench.send(Accepted(), delivered=3, trigger="other")
    send_time = bench.book(trigger=both)

    bench.run(bench.gate.report(send_time, Accepted(), delivered={"vip": 5, "other": 0}))

    assert send_time.successes == {"vip": 0, "other": 3}
    stored = bench.fields()
    assert (stored["ok|vip"], stored["ok|other"]) == ("5", "3")


def test_what_several_triggers_share_and_fails_is_suspected_of_each(bench):
    for _ in range(5):
        bench.report(bench.book(trigger=("vip", "other")), FAILED)

    looks = bench.look("vip", "other", "new")

    assert [type(look) for look in looks.values()] == [Closed, Closed, Open]


def test_several_triggers_get_no_slot_together_while_one_of_them_is_in_trouble(bench):
    for _ in range(5):
        bench.report(bench.book(), FAILED)

    together = bench.book(trigger=("new", "vip"))

    assert together.reason == APART
    assert isinstance(bench.book(trigger=("new", "other")), SendTime)


def test_a_trigger_whose_probe_goes_first_shares_no_slot_and_is_seen_by_a_look(bench):
    bench.run(bench.gate.resume("vip"))

    assert bench.look("vip", "other") == {"vip": Open(probe=True), "other": Open()}
    assert bench.book(trigger=("vip", "other")).reason == APART
    assert bench.book(trigger="vip").probe


def test_the_last_answers_of_each_trigger_are_remembered(bench):
    bench.send(Accepted(), trigger="taken")
    bench.send(BodyRefused("400: no"), trigger="refused", batch="live|refused|1-0")
    bench.send(Accepted(), trigger="mixed")
    for position in ("live|mixed|1-0", "live|mixed|2-0"):
        bench.send(BodyRefused("400: no"), trigger="mixed", batch=position)
    bench.pass_seconds(5.0)
    names = ["taken", "refused", "mixed", "new"]

    found = bench.run(bench.gate.answers(names))

    assert [found[name].refused for name in names] == ["", "live|refused|1-0", SEVERAL, ""]
    assert found["taken"].taken_seconds_ago >= 5.0
    assert found["refused"].taken_seconds_ago is None
    bench.send(Accepted(), trigger="mixed")
    assert bench.run(bench.gate.answers(["mixed"]))["mixed"].refused == ""
