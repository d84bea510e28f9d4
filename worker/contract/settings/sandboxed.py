"""The configuration of a sandbox run: all requests go to the sandbox, and nothing real is touched.

`SEGRELAY_SANDBOX` in the environment asks for it: every process that has it works on the same
sandbox run, in a Redis of its own, and every other process on the real configuration. `0` means the
real one on purpose: a command with neither is refused where a sandbox runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from segrelay.worker.contract.settings.http import TargetUrl, secrets_of
from segrelay.worker.contract.settings.urls import is_loopback, refuse_base_reason
from segrelay.worker.contract.settings.values import EMBEDDED, Secret
from segrelay.worker.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from segrelay.worker.contract.settings import Authorization, Settings, Trigger
    from segrelay.worker.contract.settings.sections import Destination

SANDBOX_VARIABLE: Final = "SEGRELAY_SANDBOX"
REAL: Final = "0"
"""The value of the variable with which commands work on the real Redis beside a sandbox run."""
DEFAULT_SANDBOX: Final = "http://127.0.0.1:8900"
ENDPOINTS_PATH: Final = "/to"
"""The sandbox's path for destinations of the API `http`, each of which stands below its name."""
TOKEN_PATH: Final = "/_oauth2/token"  # noqa: S105 - a path of the sandbox
_IN_PLACE_OF_SECRETS: Final = "/secret-url"
"""The path at the sandbox that replaces a trigger's secret URL."""
_HERE: Final[Mapping[str, Any]] = {"hosts": (), "networks": ("127.0.0.0/8", "::1/128")}
"""The only hosts that a destination may lead to in a sandbox run."""
_PLACEHOLDER: Final = Secret("sandbox", "sandbox")
"""The value in place of every secret: no real one is sent to the sandbox or needs to be set."""
_PLACEHOLDER_KEY: Final = Secret("sandbox", f"{'A' * 43}=")


def sandbox_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the sandbox, or "" if this is no sandbox run.

    Raises:
        ConfigurationInvalid: The variable is neither 1 nor the URL of a sandbox on this machine.
    """
    value = environ.get(SANDBOX_VARIABLE, "").strip()
    if value in {"", REAL}:
        return ""
    url = DEFAULT_SANDBOX if value == "1" else value.rstrip("/")
    if refuse_base_reason(url) or not is_loopback(urlsplit(url).hostname or ""):
        raise ConfigurationInvalid(
            f"{SANDBOX_VARIABLE}: is neither 1 nor the URL of a sandbox on this machine,"
            f" e.g. {DEFAULT_SANDBOX}"
        )
    return url


def sandbox_data_dir(data_dir: Path) -> Path:
    """Return the data directory of sandbox runs beside that of the real embedded Redis."""
    return data_dir.with_name(data_dir.name + "-sandbox")


def sandboxed(settings: Settings, url: str) -> Settings:
    """Return a configuration with the sandbox in the place of Insider and Lytics.

    Redis is an embedded one beside the real data directory, whatever `redis.url` says.
    """
    data_dir = sandbox_data_dir(settings.redis.data_dir)
    redis = {"url": EMBEDDED, "broker_url": "", "data_dir": data_dir}
    told = (
        f"{SANDBOX_VARIABLE}: this is a sandbox run; everything goes to the sandbox at {url},"
        " and the real Redis is not touched"
    )
    flower = settings.flower
    changed: dict[str, Any] = {
        "redis": settings.redis.model_copy(update=redis),
        "destinations": {
            name: one.model_copy(
                update={"base_url": _base_url(one, url), "http": one.http.model_copy(update=_HERE)}
            )
            for name, one in settings.destinations.items()
        },
        "triggers": {
            name: _below(trigger, settings.destinations[trigger.destination], url)
            for name, trigger in settings.triggers.items()
        },
        "authorizations": {
            name: _without_secrets(one, url) for name, one in settings.authorizations.items()
        },
        "flower": flower if flower and flower.password.is_set else None,
        "operate": settings.operate.model_copy(update={"notify": None}),
        "warnings": (*settings.warnings, told),
    }
    if settings.protection:
        changed["protection"] = settings.protection.model_copy(update={"key": _PLACEHOLDER_KEY})
    if settings.lytics:
        lytics = {"base_url": url, "token": _PLACEHOLDER}
        changed["lytics"] = settings.lytics.model_copy(update=lytics)
    return settings.model_copy(update=changed)


def _base_url(destination: Destination, url: str) -> str:
    """Return the base URL at which the sandbox stands in for a destination."""
    path = "" if destination.api == "insider" else urlsplit(destination.base_url).path
    return _root(destination, url) + path.rstrip("/")


def _root(destination: Destination, url: str) -> str:
    if destination.api == "insider":
        return url
    return f"{url}{ENDPOINTS_PATH}/{destination.name}"


def _below(trigger: Trigger, destination: Destination, url: str) -> Trigger:
    """Return a trigger whose URL, if it is absolute or a secret, leads to the sandbox too."""
    changed: dict[str, Any] = {}
    parts = urlsplit(trigger.url.text)
    if trigger.url.secret:
        changed["url"] = TargetUrl(_IN_PLACE_OF_SECRETS)
    elif parts.scheme:
        query = f"?{parts.query}" if parts.query else ""
        changed["url"] = TargetUrl(f"{_root(destination, url)}{parts.path}{query}")
    return trigger.model_copy(update=changed)


def _without_secrets(authorization: Authorization, url: str) -> Authorization:
    """Return an authorization of the same type whose secrets are placeholders."""
    changed: dict[str, Any] = {"authority": "", "parameters": {}}
    for name, value in authorization:
        if isinstance(value, Secret):
            changed[name] = _PLACEHOLDER
        elif name in {"headers", "extra"}:
            changed[name] = value | {str(key): _PLACEHOLDER for (key,), _ in secrets_of(value)}
    if authorization.uses_token:
        changed["token_url"] = url + TOKEN_PATH
    return authorization.model_copy(update=changed)
