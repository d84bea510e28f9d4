"""Gates of invented hosts."""

from typing import Any

from segrelay.worker.adapters.redis.gate import RedisGate
from segrelay.worker.contract.settings import Authorization, Destination


def destination_of(host: str, per_minute: float = 1_000_000) -> Destination:
    """Return a destination at a host, with its rate."""
    return Destination(
        name="insider",
        api="insider",
        base_url=f"https://{host}.example.com",
        authorization="insider",
        rate=f"{60 * per_minute:.0f}/h",
    )


def gate_of(
    client: Any, host: str, per_minute: float = 1_000_000, access: Authorization | None = None
) -> RedisGate:
    """Return the gate of a host."""
    return RedisGate(client, destination_of(host, per_minute), access)
