"""Builders of configurations: tables of `segrelay.toml` with what a test does not care about."""

import json
from pathlib import Path
from typing import Any

from segrelay.worker.contract.settings import Settings, load_settings
from tests.sealed import KEY, is_sealed

INSIDER_URL = "https://unification.useinsider.com"
NOBODY_LISTENS_URL = "http://127.0.0.1:9"
UPSERT = "/api/user/v1/upsert"
DELETE = "/api/user/v1/attribute/delete"


def configuration(*tables: str, redis: str = "embedded", **redis_keys: Any) -> str:
    """Return a whole configuration.

    Args:
        tables: From `table`, `insider`, `endpoint`, `trigger` and the others.
        redis: The URL of Redis.
        redis_keys: More keys of `[redis]`.
    """
    if not any(each.startswith("[delivery]") for each in tables):
        tables = (delivery(), *tables)
    if is_sealed():
        tables = (*tables, table("protection", key=KEY))
    return "".join([table("redis", url=redis, **redis_keys), *tables])


def settings_in(folder: Path, *tables: str, **redis_keys: Any) -> Settings:
    """Write a configuration and a template `any.jsonnet` into a folder, and load it."""
    (folder / "templates").mkdir(exist_ok=True)
    (folder / "templates" / "any.jsonnet").write_text("{}")
    path = folder / "segrelay.toml"
    path.write_text(configuration(*tables, **redis_keys))
    return load_settings(path, environ={})


def delivery(**keys: Any) -> str:
    """Return a table of a drain's limits; its ledger remembers the days of which tests write."""
    return table("delivery", **{"ledger_retention": "3650d", **keys})


def table(name: str, /, **keys: Any) -> str:
    """Return a table of TOML; a dictionary becomes an inline table."""
    lines = [f"{key} = {_value(value)}" for key, value in keys.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def insider(name: str = "insider", *, base_url: str = INSIDER_URL, **keys: Any) -> str:
    """Return a destination that is Insider, or a sandbox at `base_url`."""
    settings = {"api": "insider", "base_url": base_url, "rate": "25000/min", **keys}
    return table(f"destinations.{name}", **settings)


def credentials() -> str:
    """Return the credentials of an invented partner, for `authorization="insider"`."""
    headers = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "secret-token"}
    return table("authorizations.insider", label="Sandbox", headers=headers)


def endpoint(
    name: str, *, base_url: str = NOBODY_LISTENS_URL, rate: str = "25000/min", **keys: Any
) -> str:
    """Return a destination that is an HTTP endpoint on this machine."""
    return table(f"destinations.{name}", api="http", base_url=base_url, rate=rate, **keys) + table(
        f"destinations.{name}.http", networks=["127.0.0.0/8"]
    )


def trigger(name: str, *, destination: str = "insider", **keys: Any) -> str:
    """Return a trigger: entrances of `vip`, unless `keys` say otherwise."""
    settings = {
        "destination": destination,
        "audiences": ["vip"],
        "on": "enter",
        "template": "any.jsonnet",
        "url": UPSERT,
        **keys,
    }
    return table(f"triggers.{name}", **settings)


def lytics(base_url: str) -> str:
    """Return the connection to a sandbox that stands in for Lytics."""
    return table("lytics", base_url=base_url, token="a-token-of-nobody")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)
