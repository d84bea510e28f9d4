"""`rename destination` and `redis partitions`, which move what Redis holds."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from segrelay.ops.moving.renaming import Renaming
from segrelay.ops.moving.renumbering import Renumbering
from segrelay.ops.state.acts import Asks, Doing, perform
from segrelay.ops.state.partitions import (
    Carried,
    PartitionSnapshot,
    all_partitions,
    known_destinations,
    number_change,
    snapshots,
)
from segrelay.ops.state.waiting import refuse_other_configurations
from segrelay.ops.terminal.console import mention
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import DryRun, configured
from segrelay.worker.adapters.redis.shared_keys import (
    former_names,
    rename_hint,
)
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.processes import processes_here, read_processes
from segrelay.worker.contract.receivers import SEEN_WITHIN_MS, read_receivers
from segrelay.worker.contract.redis.claim import learn_numbering
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms, servers_of
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import MOST_PARTITIONS
from segrelay.worker.errors import OperationsMustAct, UsageWrong


def rename(
    old: Annotated[str, typer.Argument(help="The name that the configuration no longer has.")],
    new: Annotated[str, typer.Argument(help="The name that it has now.")],
    *,
    relay: Asks,
) -> Result:
    """Move everything that Redis holds about a destination to its new name.

    Change the name in the configuration, restart the workers and the receivers, and run this:
    what waits, the ledger, the dead letters, the counts, the members of syncs, the positions of
    jobs and stable ids go to the new name. Nothing is delivered under either name meanwhile. It can
    be interrupted, and run again, as often as you like: a receiver that still knew the old name may
    have accepted more. No worker drains the old name afterwards; to go back to it, run this with
    the names exchanged.
    """
    client, settings = relay.client, relay.settings
    _refuse(settings, old, new, known_destinations(client, settings))
    refuse_other_configurations(client, settings)
    relay.confirm(f"Carry everything of {old} over to {new}?")
    renaming = Renaming(client, settings, old, new, _tell)

    def carry(doing: Doing) -> Carried:
        done = renaming.run()
        doing.count = done.deliveries
        return done

    done = perform(client, relay.act(old, to=new), carry, stands=True)
    return Result(asdict(done), f"{old} is {new} now: {done}")


def _refuse(settings: Settings, old: str, new: str, known: list[str]) -> None:
    configured("destination", new, settings.destinations)
    if old in settings.destinations:
        raise UsageWrong(
            f"The configuration still has the destination {old}: give it the name {new} there, and"
            " restart the workers and receivers first."
        )
    if old not in known:
        raise UsageWrong(f"Redis holds nothing of a destination {old}.")


def _tell(carried: Carried) -> None:
    mention(f"carried over: {carried}")


def partitions(
    count: Annotated[
        int | None,
        typer.Argument(metavar="[N]", help="How many there will be.", min=1, max=MOST_PARTITIONS),
    ] = None,
    *,
    dry_run: DryRun = False,
    relay: Asks,
) -> Result:
    """Show the number of partitions and what waits in them, or change that number to N.

    Stop everything else first: workers, receivers, jobs and other commands; Redis stays. All that
    is kept by partition is copied to new partitions, then the number changes, and what was copied
    is deleted; so Redis needs room for all of it twice. Nothing starts until it is done. It can be
    interrupted, and run again, as often as you like.
    """
    client, settings = relay.client, relay.settings
    numbering = learn_numbering(client, settings)
    if count is None or dry_run:
        return _shown(client, settings, numbering, count)
    if numbering.target or numbering.count != count:
        _refuse_while_anything_runs(client)
    if not numbering.target and numbering.count != count:
        for new, old in former_names(client, settings).items():
            raise UsageWrong(f"Rename the destination first: {rename_hint(old, new)}.")
        _refuse_without_room(client)
        relay.confirm(f"Change {numbering.count:,} partitions to {count:,}?")
    renumbering = Renumbering(client, settings, count, _tell)

    def copy(doing: Doing) -> Carried:
        done = renumbering.run()
        doing.count = done.deliveries
        return done

    before = numbering.count
    done = perform(client, relay.act(str(count), **{"from": before}), copy)
    told = f"{before:,} partitions are {count:,} now: {done}"
    if before == count and not numbering.target:
        told = f"There are {count:,} partitions already."
    return Result({"from": before, "to": count, **asdict(done)}, told)


def _refuse_while_anything_runs(client: Redis) -> None:
    """Refuse while workers or receivers run; what stands still unseen is refused by every write."""
    here = {(one.host, one.pid) for one in processes_here(client)}
    running = [
        f"worker {one.host}:{one.pid}"
        for one in read_processes(client)
        if one.host != socket.gethostname() or (one.host, one.pid) in here
    ]
    now = now_ms(client)
    receivers = read_receivers(client, now)
    if now - receivers.seen_ms < SEEN_WITHIN_MS:
        running += [f"receiver {name}" for name in receivers.running]
    if running:
        raise OperationsMustAct(
            f"These run, or were killed some seconds ago: {', '.join(running)}. The number of"
            " partitions changes only while nothing but Redis runs. Stop workers and receivers by"
            " Ctrl-C or SIGTERM (after `segrelay up`, start its Redis alone by `segrelay redis"
            " start`). Then give this command again."
        )


def _refuse_without_room(client: Redis) -> None:
    for address, server in servers_of(client):
        memory: Any = server.info("memory")
        most, needed = int(memory["maxmemory"]), 2 * int(memory["used_memory"])
        if 0 < most < needed:
            raise OperationsMustAct(
                f"Redis {address}".rstrip()
                + f" may take {most:,} bytes, and all is there twice for"
                f" a while: set `maxmemory` to at least {needed:,} until the number is changed."
            )


def _shown(client: Redis, settings: Settings, numbering: Numbering, count: int | None) -> Result:
    found = snapshots(client, all_partitions(client, settings))
    document = number_change(numbering).document() | {
        "destinations": {
            name: _spread([one for one in found if one.place.destination == name])
            for name in known_destinations(client, settings)
        }
    }
    lines = [_headline(numbering)]
    for name, spread in document["destinations"].items():
        lines.append(
            f"{name}: {spread['waiting']:,} deliveries wait, {spread['least']:,} to"
            f" {spread['most']:,} in a partition; {spread['letters']:,} dead letters"
        )
    if count is not None:
        document["to"] = count
        lines.append(
            f"All of it, and the ledger, would go to {count:,} new partitions; nothing was changed."
        )
    return Result(document, *lines)


def _headline(numbering: Numbering) -> str:
    numbers = numbering.numbers
    shown = f"{numbering.count:,} partitions, with the numbers {numbers.start} to {numbers[-1]}"
    if not numbering.target:
        return shown
    return (
        f"{shown}; being changed to {numbering.target:,}. Where nobody does it any more, `segrelay"
        f" redis partitions {numbering.target}` goes on."
    )


def _spread(found: Sequence[PartitionSnapshot]) -> dict[str, int]:
    lengths = [sum(stream.length for stream in one.waiting) for one in found] or [0]
    return {
        "waiting": sum(lengths),
        "least": min(lengths),
        "most": max(lengths),
        "letters": sum(one.dead_letters for one in found),
    }
