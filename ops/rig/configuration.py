"""The configuration of a rig, and tables that can be added to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CONFIGURATION: Final = """\
templates = "{templates}"

[redis]
url = "{redis_url}"
{redis}

[delivery]
{delivery}

[authorizations.insider]
label = "Sandbox"
headers = {{ X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "{token}" }}

[destinations.insider]
api = "insider"
base_url = "{sandbox}"
authorization = "insider"
rate = "{rate}"
{destination}

[triggers.enter]
destination = "insider"
audiences = {audiences}
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
{enter}

[triggers.exit]
destination = "insider"
audiences = {audiences}
on = "exit"
template = "insider/exit.jsonnet"
url = "/api/user/v1/attribute/delete"

{exit_event}
{more}
"""

EXIT_EVENT: Final = """\
[triggers.exit-event]
destination = "insider"
audiences = {audiences}
on = "exit"
template = "insider/exit-event.jsonnet"
url = "/api/user/v1/upsert"
"""

_PAIR: Final = """
[triggers.{audience}-enter]
destination = "insider"
audiences = ["{audience}"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"

[triggers.{audience}-exit]
destination = "insider"
audiences = ["{audience}"]
on = "exit"
template = "insider/exit.jsonnet"
url = "/api/user/v1/attribute/delete"
"""


def trigger_pairs(audiences: Iterable[str]) -> str:
    """Return TOML tables: a trigger for entrances and a trigger for exits of each audience."""
    return "".join(_PAIR.format(audience=audience) for audience in audiences)
