"""A request while it is packed: what may share it, and what may not."""

from types import SimpleNamespace
from typing import Any

from segrelay.worker.batch.batch import Batch, Request
from segrelay.worker.batch.delivery import Delivery, LoadedTrigger
from segrelay.worker.batch.pack import RequestBuilder, reduce
from segrelay.worker.contract.events import Header
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.backoff import Backoff
from segrelay.worker.core.gate import SendTime
from segrelay.worker.destinations.api import Shaped, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.ledger_keys import ledger_event

OBJECTS = {"object_attributes": [{"name": "cart"}]}
TRIGGER = LoadedTrigger(
    name="enter",
    api=InsiderApi(),
    api_name="insider",
    template=None,
    rules=ShapingRules("/api/user/v1/upsert", "lytics_computed_attr", "US"),
    headers={},
    params={},
    settings={},
    on_ambiguous="resend",
)


def delivery(person: str, *, at: int = 1, root: dict[str, Any]) -> Delivery:
    """Return a delivery that was rendered with `OBJECTS`, of which `root` is still true."""
    digest = digest_of(f"email:{person}@example.com")
    header = Header(
        digest, "vip", Direction.ENTER, at, state=False, skip_hook=False, repair=False,
        accepted_ms=0,
    )  # fmt: skip
    users: tuple[dict[str, Any], ...] = ({"identifiers": {"email": f"{person}@example.com"}},)
    made = Delivery("live|enter", "enter", f"{at}-0", header, b"{}")
    made.loaded, made.event = TRIGGER, ledger_event(at, Direction.ENTER, 1, at)
    made.shaped, made.sent = Shaped(users, OBJECTS), Shaped(users, root)
    made.names = frozenset({digest})
    return made


def test_what_comes_behind_a_delivery_with_other_root_options_stays_behind_it() -> None:
    request = RequestBuilder(most=10, room=10_000)
    left = delivery("bob", root=OBJECTS)
    request.add(delivery("ann", root={}), (b"{}",))

    request.add(left, (b"{}",))

    assert left.names <= request.names


def test_users_fill_a_body_to_its_last_byte_with_a_comma_behind_each() -> None:
    request = RequestBuilder(most=10, room=12)

    assert request.add(delivery("ann", root={}), (b"{1}", b"{}"))
    assert not request.add(delivery("bob", root={}), (b"{222}",))
    assert request.add(delivery("cid", root={}), (b"{44}",))
    assert request.room == 0


def test_no_user_object_is_shared_by_deliveries_with_different_root_options() -> None:
    request = RequestBuilder(most=10, room=10_000)
    request.add(delivery("ann", at=1, root={}), (b"{}",))

    assert not request.join(delivery("ann", at=2, root=OBJECTS), 10, Record())
    assert not request.join(delivery("ann", at=3, root={}), 10, Record()), (
        "it stays behind that one"
    )


def test_a_probe_carries_who_has_failed_the_least_and_the_others_wait_for_it() -> None:
    failed, fresh = delivery("ann", at=1, root={}), delivery("bob", at=2, root={})
    backoffs = {failed.position: Backoff(0, failures=1)}
    state: Any = SimpleNamespace(backoffs=backoffs, waits={}, is_preview=lambda _: True)
    batch = Batch(state)
    batch.busy |= failed.names | fresh.names
    request = Request(((failed,), (fresh,)), "", b"", 2, ("enter",), is_part=True)
    request.send_time = SendTime(1.0, 1.0, {}, probe=True, incident=0)

    probe = reduce(batch, request)

    assert probe.deliveries == (fresh,)
    assert (probe.send_time, probe.is_booked, probe.is_part) == (request.send_time, True, True)
    assert b"bob@example.com" in probe.body
    assert (batch.busy, batch.trying) == (fresh.names, {"enter"})
    assert [([*part.deliveries], part.is_refused) for part in batch.parts] == [([failed], True)]


def test_what_was_taken_back_stays_before_a_part_that_is_narrower() -> None:
    taken, narrow = delivery("ann", at=1, root={}), delivery("bob", at=2, root={})
    backoffs = {narrow.position: Backoff(1, failures=1)}
    state: Any = SimpleNamespace(backoffs=backoffs, waits={}, is_preview=lambda _: False)
    batch = Batch(state)

    batch.put_back([taken], is_refused=True)
    batch.add(narrow)

    assert [[*part.deliveries] for part in batch.parts] == [[taken], [narrow]]
