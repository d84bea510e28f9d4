"""Failures, unreadable answers and refused credentials close the gate, and what opens it again."""

import pytest

from segrelay.worker.core.gate import Closed, SendTime
from segrelay.worker.core.verdicts import Accepted, BodyRefused, TooLarge, Unreadable
from tests.conformance.gate.failing import FAILED, REFUSED, break_it


def test_five_failures_in_a_row_open_the_breaker(bench):
    break_it(bench, "vip", "other")

    closed = bench.book()

    assert closed == Closed("broken", "failing", bench.now_ms + 1000, "503")


def test_a_success_between_keeps_it_closed(bench):
    for _ in range(3):
        bench.send(FAILED)
        bench.send(FAILED, trigger="other")
        bench.send(Accepted())

    assert isinstance(bench.book(), SendTime)


@pytest.mark.parametrize("failing", [("vip",), ("vip", "new")])
def test_failures_of_some_triggers_stop_no_other(bench, failing):
    break_it(bench, *failing)

    own = bench.book(trigger=failing[-1])
    other = bench.book(trigger="other")
    state = bench.report(other, Accepted())

    assert own.state == "broken"
    assert not other.probe
    assert state.state == "ok"


def test_in_an_outage_each_trigger_finds_out_for_itself(bench):
    break_it(bench, "vip", "new")

    bench.send(FAILED, trigger="other")

    assert bench.book(trigger="other").state == "broken"


def test_failures_of_more_triggers_than_are_remembered_stop_all(bench):
    names = [f"t{n}" for n in range(20)]
    send_times = {name: bench.book(trigger=name, horizon_seconds=60) for name in names}
    for send_time in send_times.values():
        bench.report(send_time, FAILED)

    assert bench.book(trigger="other").state == "broken"


def test_a_breaker_lets_one_through_at_longer_and_longer_intervals(bench):
    break_it(bench, "vip", "other")

    waits = []
    for _ in range(6):
        closed = bench.book()
        waits.append((closed.until_ms - bench.now_ms) / 1000)
        bench.send(FAILED)

    assert waits == [1, 2, 4, 8, 16, 30]


def test_late_failures_do_not_lengthen_it(bench):
    late = [bench.book(trigger="other") for _ in range(3)]
    break_it(bench, "vip", "other")
    for send_time in late:
        bench.report(send_time, FAILED)

    assert bench.book().until_ms <= bench.now_ms + 1000


@pytest.mark.parametrize(
    "verdict", [Accepted(), BodyRefused("no"), TooLarge("much")], ids=lambda v: type(v).__name__
)
def test_any_sure_answer_closes_the_breaker(bench, verdict):
    break_it(bench, "vip", "other")

    state = bench.send(verdict)

    assert state.state == "ok"
    assert not bench.book().probe


def test_a_probe_without_a_result_is_given_up(bench):
    break_it(bench, "vip", "other")
    bench.pass_seconds(1)
    bench.book()

    waiting = bench.book()
    bench.pass_seconds((waiting.until_ms - bench.now_ms) / 1000)
    second = bench.book()

    assert waiting.reason == "probing"
    assert second.probe


def test_a_probe_that_was_not_sent_makes_room_at_once(bench):
    break_it(bench, "vip", "other")
    bench.pass_seconds(1)
    probe = bench.book()

    bench.run(bench.gate.cancel(probe))

    assert bench.book().probe


def test_the_second_unreadable_answer_in_a_row_pauses(bench):
    bench.send(Unreadable("HTML"))
    probe = bench.book()
    bench.report(probe, Accepted())
    assert probe.probe
    bench.send(Unreadable("HTML"))
    state = bench.send(Unreadable("HTML again"))

    assert (state.state, state.reason) == ("paused", "unknown_answer")
    assert bench.book() == Closed("paused", "unknown_answer", None, "HTML again")


def test_refused_credentials_pause_with_label_and_fingerprint(bench):
    gate = bench.gate_with(credentials="old")

    state = bench.send(REFUSED, gate=gate)

    assert (state.state, state.reason) == ("paused", "access_refused")
    assert "Insider (credentials " in state.message
    assert "old" not in state.message
    assert bench.book(gate=gate).until_ms is None


def test_a_worker_with_other_credentials_probes_and_goes_on(bench):
    old, new = bench.gate_with(credentials="old"), bench.gate_with(credentials="new")
    bench.send(REFUSED, gate=old)

    probe = bench.book(gate=new)
    second = bench.book(gate=new)
    state = bench.report(probe, Accepted(), gate=new)

    assert probe.probe
    assert second.reason == "probing"
    assert state.state == "ok"
    assert not bench.book(gate=new).probe
    assert bench.book(gate=old).reason == "access_refused"


def test_two_wrong_credentials_do_not_take_turns(bench):
    old, new = bench.gate_with(credentials="old"), bench.gate_with(credentials="new")
    bench.send(REFUSED, gate=old)
    bench.send(REFUSED, gate=new)

    assert bench.book(gate=old).state == "paused"
    assert bench.book(gate=new).state == "paused"


def test_after_a_resume_one_probe_goes_first(bench):
    bench.send(REFUSED)
    bench.run(bench.gate.resume())

    probe, other = bench.book(), bench.book()
    bench.report(probe, Accepted())

    assert probe.probe
    assert other.reason == "probing"
    assert not bench.book().probe


def test_a_late_refusal_does_not_undo_a_resume(bench):
    late = bench.book()
    bench.send(REFUSED)
    bench.run(bench.gate.resume())

    bench.report(late, REFUSED)

    assert bench.book().probe


def test_a_resumed_trigger_sends_a_probe_while_others_go_on(bench):
    bench.run(bench.gate.resume("vip"))

    probe, second, other = bench.book(), bench.book(), bench.book(trigger="other")
    bench.report(probe, Accepted())

    assert probe.probe
    assert second.reason == "probing"
    assert not other.probe
    assert not bench.book().probe


def test_a_resumed_trigger_probes_again_if_the_first_failed(bench):
    bench.run(bench.gate.resume("vip"))
    bench.send(FAILED)

    assert bench.book().probe
