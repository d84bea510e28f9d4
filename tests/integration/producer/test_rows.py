"""Rows that are drafted in one go become what each of them would become by itself."""

import re
from typing import Any

import orjson
import pytest

from segrelay.producer.events.payloads import Payload, RowForm, payloads_of
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.publishing.published import JobPosition, PublishOptions
from tests.configuration import trigger
from tests.integration.producer.redis_contents import entries
from tests.unit.producer.payload_samples import VIP, WRAPPED

AT = "2026-11-20T06:00:00Z"
ROWS: list[Any] = [
    {"email": " Ann@Example.com ", "first_name": "Ann"},
    {"email": "big@example.com", "number": 2**53 + 1, "list": [2**63]},
    {"email": "deep@example.com", "data": {"email": "x@example.com"}},
    {"email": "nested@example.com", "a": [[["x"]]] * 3},
    {"first_name": "Nobody"},
    {"email": ["no", "text"]},
    {
        "email": "own@example.com",
        "segment_events": [{"slug": "vip", "event": "enter", "enter": AT}],
    },
    {"email": "none@example.com", "segment_events": []},
    WRAPPED,
    [{"email": "one@example.com"}, {"email": "two@example.com"}, 17],
    [],
    17,
    "text",
    None,
    {},
    {"email": "large@example.com", "pad": "x" * 5_000},
    {"email": "too-large@example.com", "pad": "x" * 5_000_000},
    {"email": "sur\ud800@example.com"},
    {"_id": 12, "id": "13", "email": "id@example.com"},
    {"users": [], "email": "users@example.com"},
]
TRIGGERS = (
    trigger("whole"),
    trigger("part", export_fields=["first_name"], skip_hook=False),
    trigger("leaves", on="exit"),
)


def test_the_digest_of_routing_changes_with_what_rows_would_become(configure: Any) -> None:
    ways = ({}, {"on": "exit"}, {"audiences": ["gold"]}, {"export_fields": ["age"]})
    made = [configure(trigger("whole", **way)) for way in ways]
    made += [configure(trigger("named")), configure(trigger("whole"), identity="id")]

    assert len({routing_digest(each) for each in made}) == len(made)


def rows() -> list[Payload]:
    found = [Payload(b"text", row, line) for line, row in enumerate(ROWS, start=5)]
    return [*found, Payload(b"{bro", None, 99, error="Not JSON.")]


def contents(client: Any, lane: str) -> list[Any]:
    return sorted(
        (e.trigger, e.partition, e.header._replace(accepted_ms=0), orjson.dumps(e.profile))
        for e in entries(client)
        if e.lane == lane
    )


def undated(document: Any) -> str:
    """Return a document without the seconds by which a time is ahead of the clock."""
    return re.sub(r"is \d+ s ahead", "is ahead", str(document))


@pytest.mark.parametrize("identity", ["email", "id"])
@pytest.mark.parametrize("only", [(), ("part",), ("leaves",)])
@pytest.mark.parametrize(
    "membership",
    [
        RowForm("vip", "", "enter", AT),
        RowForm("vip", VIP, "exit", AT),
        RowForm("nobody", "", "enter", AT),
        RowForm("vip", "", "enter", "2099-01-01T00:00:00Z"),
    ],
)
def test_rows_become_what_each_would_by_itself(  # noqa: PLR0917 - fixtures
    configure: Any,
    publisher_of: Any,
    client: Any,
    membership: RowForm,
    only: tuple[str, ...],
    identity: str,
) -> None:
    publisher: Publisher = publisher_of(configure(*TRIGGERS, identity=identity))
    publisher.publish([orjson.dumps(WRAPPED)])  # whose id is known from now on
    singles = [each for row in rows() for each in payloads_of(row, membership)]

    slow = publisher.publish(singles, PublishOptions(job="slow", triggers=only, again=True))
    draft = publisher.draft(
        rows(), membership, PublishOptions(job="quick", triggers=only, again=True)
    )
    quick = publisher.write_draft(draft, JobPosition("quick", 1, "s"))

    assert contents(client, "job.quick") == contents(client, "job.slow")
    assert undated(quick.document()) == undated(slow.document())
