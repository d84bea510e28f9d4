"""Carries audience entrances and exits from the Lytics CDP to Insider.

Programs publish events with `open_publisher`; everything else is for `segrelay` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segrelay.producer.publish import open_publisher

__all__ = ["open_publisher"]


def __getattr__(name: str) -> Any:
    """Load the publisher when it is used: commands that only print never need it."""
    if name != "open_publisher":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segrelay.producer import publish  # noqa: PLC0415 - see above

    return publish.open_publisher
