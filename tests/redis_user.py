"""The Redis user that tests run under: the shipped rights, and the few that tests need beside."""

from pathlib import Path
from urllib.parse import urlsplit

from segrelay.worker.contract.redis.client import Redis

USERS = Path(__file__).parents[1] / "ops/redis/users.conf"
PASSWORD = "of-the-tests"
MORE = (
    "~drained", "~a", "~key", "+blpop", "+replicaof", "+flushall", "+flushdb", "+keys",
    "+config|set", "+dump", "+restore", "+acl", "+monitor", "+client|kill", "+script|flush",
)  # fmt: skip
"""What tests do to Redis themselves: to empty it, to look at all of it, to break it."""


def rules() -> list[str]:
    """Return the rules of the shipped user, without its password."""
    (line,) = [one for one in USERS.read_text().splitlines() if one.startswith("user ")]
    _, _, *found = line.split()
    return [rule for rule in found if not rule.startswith(">")]


def make_user(client: Redis, *more: str) -> None:
    """Make the user, with its shipped rights and more."""
    client.execute_command("ACL", "SETUSER", "segrelay", f">{PASSWORD}", *rules(), *more)


def restricted_url(client: Redis, url: str) -> str:
    """Return the URL of a server for a user with these rights, who is made."""
    make_user(client, *MORE)
    parts = urlsplit(url)
    return f"redis://segrelay:{PASSWORD}@{parts.hostname}:{parts.port}{parts.path}"
