"""A route: all that a drain needs to know of one trigger, put together once per process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.contract.settings.authorizations import Certificate
from worker.destinations.api import Api, ShapingRules
from worker.jsonnet.rendered import Engine, Template


@dataclass(frozen=True, slots=True)
class Route:
    """One trigger, ready to deliver.

    Args:
        api_name: As configured: `insider` or `http`.
        template: None where it is broken; then the trigger is stopped.
        headers: Of the authorization, revealed; `{token}` stands for a token.
        params: Of the authorization, revealed; `{token}` stands for a token.
        settings: The template's `jobConfGet`.
        engine: `jsonnet`: never the compiled form of the template.
        stopped: Why it can't deliver until its template is mended, or a secret is set; "" = it can.
        token_of: The authorization whose token requests carry; "" = none.
        envelope: Makes a whole body of its array of results; None = no template does.
        tls: The files with which connections are secured.
    """

    trigger: str
    api: Api
    api_name: str
    template: Template | None
    rules: ShapingRules
    headers: Mapping[str, str] = field(repr=False)
    params: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, Any]
    on_ambiguous: Literal["resend", "dead_letter"]
    engine: Engine = "auto"
    stopped: str = ""
    token_of: str = ""
    tls: Certificate | None = None
    envelope: Template | None = None
