"""The APIs by the names that the configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from worker.destinations.api import Api
from worker.destinations.http import HttpApi
from worker.destinations.insider import shape as insider_shape
from worker.destinations.insider.api import InsiderApi
from worker.errors import ConfigurationInvalid

_APIS: Final[Mapping[str, Api]] = {"insider": InsiderApi(), "http": HttpApi()}


def api_named(name: str) -> Api:
    """Return an API; they hold no state.

    Raises:
        ConfigurationInvalid: There is none of that name.
    """
    if name not in _APIS:
        raise ConfigurationInvalid(f"There is no API {name!r}; known are {', '.join(_APIS)}.")
    return _APIS[name]


def path_misfit(api_name: str, body: Any, url: str) -> str | None:
    """Say why a rendered body can't be meant for a path, whatever its values; None if it can."""
    return insider_shape.misfit(body, url) if api_name == "insider" else None
