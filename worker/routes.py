"""A route: all that a drain needs to know of one trigger, put together once per process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from worker.adapters.renderer import Template
from worker.destinations.api import Api


@dataclass(frozen=True, slots=True)
class Route:
    """One trigger, ready to deliver.

    Args:
        template: None where it is broken; then the trigger is paused.
        url: Absolute, checked.
        settings: The template's `jobConfGet`.
        audience_attribute: Name of the attribute that holds the list of audiences.
    """

    trigger: str
    api: Api
    template: Template | None
    url: str
    settings: Mapping[str, Any]
    audience_attribute: str
    phone_region: str
    on_ambiguous: Literal["resend", "dead_letter"]
