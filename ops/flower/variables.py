"""The options of Flower that `FLOWER_…` variables of the environment may set.

Some of Flower's options would take the password away, move the page to another place, or end
Flower at the start. Kubernetes sets `FLOWER_PORT` to a URL beside any service called flower.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Final

from flower.command import apply_env_options
from flower.options import default_options

from worker.errors import ConfigurationInvalid

PREFIX: Final = "FLOWER_"
_COLUMNS: Final = "name,args,state,result,received,runtime,worker,uuid"
"""The columns of the list of tasks, where Flower's own tell neither place nor outcome."""
_USED: Final = frozenset(
    {
        "auto_refresh",
        "ca_certs",
        "certfile",
        "cookie_secret",
        "db",
        "enable_events",
        "inspect_timeout",
        "keyfile",
        "max_tasks",
        "max_workers",
        "natural_time",
        "persistent",
        "purge_offline_workers",
        "state_save_interval",
        "task_runtime_metric_buckets",
        "tasks_columns",
        "xheaders",
    }
)
_LISTEN: Final = "set flower.listen in segrelay.toml"
_SIGN_IN: Final = "set flower.user and flower.password in segrelay.toml"
_INSTEAD: Final = {
    "address": _LISTEN,
    "port": _LISTEN,
    "unix_socket": _LISTEN,
    "basic_auth": _SIGN_IN,
    "auth": _SIGN_IN,
    "auth_provider": _SIGN_IN,
    "oauth2_key": _SIGN_IN,
    "oauth2_secret": _SIGN_IN,
    "oauth2_redirect_uri": _SIGN_IN,
    "unauthenticated_api": _SIGN_IN,
    "read_only": "set flower.actions in segrelay.toml",
    "url_prefix": "let your proxy serve Flower under a host name of its own",
}


def apply_variables(environ: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """Set Flower's options from the environment; yield a note for each variable that is ignored.

    Raises:
        ConfigurationInvalid: A variable has a value that the option can't have.
    """
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX).lower()
        if variable == PREFIX + name.upper() and name not in _USED and _is_option(name):
            del environ[variable]
            advice = _INSTEAD.get(name, "segrelay does not use this option of Flower")
            yield f"{variable} is ignored: {advice}"
    environ.setdefault(f"{PREFIX}TASKS_COLUMNS", _COLUMNS)
    try:
        apply_env_options()
    except ValueError as error:
        names = ", ".join(v for v in sorted(environ) if v.removeprefix(PREFIX).lower() in _USED)
        raise ConfigurationInvalid(
            f"One of {names} has a value that Flower can't read: {error}."
        ) from error


def _is_option(name: str) -> bool:
    return name in default_options or name in _INSTEAD
