"""The API of a trigger's requests, as its destination and the trigger itself configure it."""

from __future__ import annotations

from typing import Any

from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.sections import AUDIENCE_ATTRIBUTE
from segrelay.worker.destinations.api import Api, ShapingRules
from segrelay.worker.destinations.http import HttpApi, Parts, misfit
from segrelay.worker.destinations.insider import shape as insider_shape
from segrelay.worker.destinations.insider.api import InsiderApi


def api_of(settings: Settings, trigger: Trigger) -> Api:
    """Return the API of a trigger's destination: how to shape, pack and judge its requests."""
    destination = settings.destinations[trigger.destination]
    if destination.api == "insider":
        return InsiderApi(unites=destination.unite)
    requests = settings.http_of(trigger)
    authorization = settings.authorization_of(destination)
    return HttpApi(
        requests,
        destination.http.networks,
        Parts(bool(trigger.template), bool(trigger.url.template), tuple(requests.header_templates)),
        destination.base_url,
        authorization if authorization and authorization.signs else None,
    )


def rules_of(settings: Settings, trigger: Trigger) -> ShapingRules:
    """Return the rules by which the bodies of a trigger are shaped."""
    return ShapingRules(
        settings.url_of(trigger),
        str(trigger.settings[AUDIENCE_ATTRIBUTE]),
        settings.delivery.phone_region,
        trigger.audience_flag_prefix,
    )


def encoding_misfit(settings: Settings, trigger: Trigger, body: Any) -> str | None:
    """Say why a rendered body can't be written in its encoding, whatever its values."""
    if settings.destinations[trigger.destination].api == "insider" or not trigger.template:
        return None
    empty = body is None or body in ("", [], {})
    return None if empty else misfit(body, settings.http_of(trigger).encoding)


def path_misfit(api_name: str, body: Any, url: str) -> str | None:
    """Say why a rendered body can't be meant for a path, whatever its values; None if it can."""
    return insider_shape.misfit(body, url) if api_name == "insider" else None
