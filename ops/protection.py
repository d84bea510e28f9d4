"""`segrelay protection`: show which keys seal people's data in Redis, and change to another one."""

from __future__ import annotations

from typing import Any, Final

import typer

from segrelay.ops.state.acts import Acts, Reads
from segrelay.ops.terminal.frame import Result
from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import read_processes
from segrelay.worker.contract.protection import SealedSecret, id_of
from segrelay.worker.contract.redis.acts import carry_out
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import OperationsMustAct, UsageWrong

_NEW: Final = "Redis is new: it is sealed once it is first used."
app = typer.Typer(help="Show and change the key that seals people's data in Redis.")

_OPEN: Final = (
    "People's data in Redis is not sealed. It can be from an empty Redis on: docs/production.md,"
    " “A key for people's data”."
)


@app.command()
def status(*, relay: Reads) -> Result:
    """Show whether people's data in Redis is sealed, and with which keys.

    Keys are named by their ids, which tell nothing about them. Exits with 1 while the key that
    stands first in the configuration does not seal alone.
    """
    record = _record(relay.client)
    configured = _configured(relay.settings)
    sealing = list(record.sealed) if record else []
    document = {"protected": record is not None, "sealed_with": sealing, "configured": configured}
    if not record:
        return Result(document, _NEW if configured else _OPEN)
    lines = [
        f"People's data in Redis is sealed with the key {', '.join(sealing)}.",
        f"The configuration has {', '.join(configured)}.",
    ]
    todo = _to_do(sealing, configured)
    return Result(
        document, *lines, *([todo] if todo else ()), exit_code=int(sealing != configured[:1])
    )


def _to_do(sealing: list[str], configured: list[str]) -> str:
    if sealing != configured[:1]:
        return "`segrelay protection rotate` seals with the first one alone."
    unused = ", ".join(configured[1:])
    return f"Nothing needs {unused} any more: take it out of [protection] key." if unused else ""


@app.command()
def rotate(*, relay: Acts) -> Result:
    """Seal with the key that stands first in the configuration, and with no other one.

    First put the new key in front of the old one and restart every process: each has to know both.
    Then this; then the old one can go. It is one write: what is stored stays as it is, since the
    key seals the secret with which all of it is sealed. A copy of Redis from before still opens
    with the old key.
    """
    client, settings = relay.client, relay.settings
    stored: Any = client.get(keys.PROTECTION)
    if not (stored and settings.protection):
        raise UsageWrong(_NEW if settings.protection else _OPEN)
    record, own = SealedSecret.loads(stored), settings.protection.revealed()
    first = id_of(own[0]).hex()
    former = [name for name in record.sealed if name != first]
    if former:
        sealed = SealedSecret.of(record.opened(own), own[:1]).dumps()
        act = relay.act(subject=first)
        if not carry_out(
            client, act, keys.PROTECTION, "SWAP", stored, sealed, only_if_changed=True
        ):
            raise OperationsMustAct("Somebody else has changed the key meanwhile; run this again.")
    document = {"sealed_with": [first], "former": former}
    return Result(document, *_rotated(first, former), notes=_not_ready(client, settings, former))


def _rotated(first: str, former: list[str]) -> list[str]:
    if not former:
        return [f"Redis is sealed with the key {first} alone; there is nothing to do."]
    return [
        f"Redis is sealed with the key {first} now.",
        f"Take {', '.join(former)} out of [protection] key, and restart every process.",
        "Copies of Redis from before open with the former key only: keep it as long as these.",
    ]


def _not_ready(client: Redis, settings: Settings, former: list[str]) -> list[str]:
    """Return a note about processes that may lack the new key; they go on until they end."""
    others = [one for one in read_processes(client) if one.config != settings.fingerprint]
    if not (former and others):
        return []
    names = ", ".join(f"{one.host}:{one.pid}" for one in others)
    return [f"{names} runs an older configuration: give it this one before it is restarted."]


def _record(client: Redis) -> SealedSecret | None:
    stored: Any = client.get(keys.PROTECTION)
    return SealedSecret.loads(stored) if stored else None


def _configured(settings: Settings) -> list[str]:
    section = settings.protection
    return [id_of(key).hex() for key in section.revealed()] if section else []
