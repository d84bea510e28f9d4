"""A segrelay with a worker, a sandbox and a console, and people who sign in to it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import orjson

from segrelay.ops.console.rights import hash_password
from tests.configuration import table
from tests.journeys.play import Rig, publish, status_of
from tests.journeys.receiver import answers
from tests.ports import own_port
from tests.waiting import until

PASSWORD = "correct horse battery"
HASH = cache(hash_password)
"""It takes a tenth of a second."""
REFUSED = "refused.example"
"""The domain of people for whom the template fails."""
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"
TEMPLATE = """\
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

local usable(email) =
  if std.endsWith(email, "@refused.example")
  then error "the plan <script>alert(2)</script> is not known"
  else email;

{
  users: [{
    identifiers: insider.identifiers,
    attributes: {
      email: usable(event.get("email")),
      name: event.get("first_name"),
      custom: { [if event.isEnter() then insider.audienceAttribute]: [event.segSlug()] },
    },
    events: insider.events,
  }],
}
"""
MENDED = TEMPLATE.replace('error "the plan <script>alert(2)</script> is not known"', "email")
SYNC = table("sync.members", audience="vip", every="1h", source="file:exports/*.csv")
USERS = {"ann": ["operator", "revealer"], "bob": ["operator"], "vic": []}


def event(email, slug="vip", way="enter", at=None, **fields):
    """Return a payload of one event of one person."""
    when = (at or datetime.now(UTC) - timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
    entry = {"slug": slug, "event": way, way: when}
    return orjson.dumps({"data": {"email": email, **fields, "segment_events": [entry]}})


@dataclass
class World(Rig):
    """A rig with a console."""

    console_lines: str = ""
    syncs: str = SYNC

    def __post_init__(self):
        self.port = own_port()
        console = {"listen": f"127.0.0.1:{self.port}", "name": "staging", "colour": "orange"}
        self.more += self.syncs + table("console", **console) + f"{self.console_lines}\n"
        for name, roles in USERS.items():
            self.more += table(f"console.users.{name}", password=HASH(PASSWORD), roles=roles)
        self.templates = {"insider/enter.jsonnet": TEMPLATE, **self.templates}
        self.console = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start_console(self):
        """Start the console, and wait until it answers."""
        self.console = self.start_beside("console")
        log = self.folder / "console.log"
        until(lambda: answers(f"{self.url}/healthz"), 30, else_show=log)
        return self.console

    def publish(self, payloads):
        publish(self, b"\n".join(payloads) + b"\n")

    def settle(self, **counts):
        """Wait until the status has these counts."""
        until(lambda: all(status_of(self)[name] == n for name, n in counts.items()), 60)


def words(page):
    """Return what a person reads on a page, as one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())
