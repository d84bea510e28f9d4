"""A destination whose requests carry one user each, so that few events use up its rate.

It posts to the same sandbox with the same credentials as the rig's own destination, so that both
stand before one gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from ops.rig.rig import Rig, free_port

CROWD: Final = "crowd"
"""Name of the destination, of its trigger, and of its audience."""

TEMPLATE: Final = """\
local insider = import "insider.libsonnet";

{ users: [{ identifiers: insider.identifiers, attributes: { name: "Somebody" } }] }
"""
_TABLES: Final = """\
[destinations.crowd]
api = "http"
base_url = "{sandbox}"
authorization = "insider"
rate = "{rate}"

[destinations.crowd.http]
networks = ["127.0.0.0/8"]

[triggers.crowd]
destination = "crowd"
audiences = ["crowd"]
on = "enter"
template = "crowd.jsonnet"
url = "/api/user/v1/upsert"
"""


def crowd_rig(
    folder: Path, *, rate: str, sandbox_settings: dict[str, Any], delivery_lines: str = ""
) -> Rig:
    """Return a rig that also has the destination `crowd`."""
    port = free_port()
    return Rig(
        folder,
        rate=rate,
        delivery_lines=delivery_lines,
        more=_TABLES.format(sandbox=f"http://127.0.0.1:{port}", rate=rate),
        templates={"crowd.jsonnet": TEMPLATE},
        sandbox_settings={"port": port, **sandbox_settings},
    )


def crowd_payloads(numbers: Iterable[int], name: str = "crowd") -> Iterator[bytes]:
    """Yield one entrance for each number; equal names and numbers stand for the same person."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "000Z")
    for number in numbers:
        email = crowd_email(number, name)
        entry = {"id": "c" * 32, "slug": CROWD, "event": "enter", "enter": at}
        data = {"_id": f"{name}-{number}", "email": email, "segment_events": [entry]}
        stamp = {"object": "user", "subscription_id": "f" * 32, "timestamp": at}
        yield orjson.dumps({"id": f"{name}-{number}", "data": data, "meta": stamp})


def crowd_email(number: int, name: str = "crowd") -> str:
    """Return the email of a person of the crowd."""
    return f"{name}{number}@example.com"
