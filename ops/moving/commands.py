"""`rename destination` and `redis partitions`, which move what Redis holds."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from segrelay.ops.moving.renumbering import Renumbering
from segrelay.ops.state.acts import Acts, Asks, Doing, perform
from segrelay.ops.state.opened import insist
from segrelay.ops.state.partitions import (
    Carried,
    PartitionSnapshot,
    all_partitions,
    known_destinations,
    number_change,
    snapshots,
)
from segrelay.ops.terminal.console import mention
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import DryRun, configured
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import processes_here, read_processes
from segrelay.worker.contract.receivers import SEEN_WITHIN_MS, read_receivers
from segrelay.worker.contract.redis.claim import (
    add_destinations,
    former_names,
    learn_numbering,
    rename_destination,
    rename_hint,
)
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms, servers_of
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import MOST_PARTITIONS
from segrelay.worker.contract.words import NAME_PATTERN
from segrelay.worker.errors import OperationsMustAct, UsageWrong


def rename(
    old: Annotated[str, typer.Argument(help="The name that Redis knows.")],
    new: Annotated[str, typer.Argument(help="The name from now on.")],
    *,
    relay: Asks,
) -> Result:
    """Give a destination another name; all that Redis holds about it stays where it is.

    Run it before or after you change the name in the configuration. It is one write, and safe while
    everything runs: a process that was started with the former name goes on working on the same
    data until you restart it. A process that starts with a name that Redis does not know refuses,
    and says so. What two destinations hold is not merged: the new name must be one that Redis does
    not know.
    """
    client, settings = relay.client, relay.settings
    _refuse(settings, old, new)
    relay.confirm(f"Call the destination {old} {new} from now on?")
    act = relay.act(old, to=new)
    if not insist(lambda: rename_destination(client, act, old, new)):
        raise OperationsMustAct(
            f"Somebody else has renamed {old}, or given the name {new}, at this moment; `segrelay"
            " status` shows the names."
        )
    return Result({"from": old, "to": new}, f"{old} is {new} now")


def _refuse(settings: Settings, old: str, new: str) -> None:
    ids = settings.redis.ids
    if not ids.has(old):
        known = ", ".join(ids.names()) or "none"
        raise UsageWrong(f"Redis knows no destination {old}; it knows: {known}.")
    if ids.has(new):
        raise UsageWrong(
            f"Redis knows a destination {new} already, and what two destinations hold is not"
            " merged. `segrelay rename trigger` moves what waits for a trigger."
        )
    if not {old, new} & settings.destinations.keys():
        raise UsageWrong(
            f"The configuration has neither {old} nor {new}; one of the two has to be there."
        )
    if not NAME_PATTERN.fullmatch(new):
        raise UsageWrong(f"{new!r} is no name: use small letters, digits and hyphens.")


def add_destination(
    name: Annotated[str, typer.Argument(help="A destination of the configuration.")],
    *,
    relay: Acts,
) -> Result:
    """Say that a destination is new, although Redis knows its address under another name.

    A process that starts refuses a new name with the host and the credentials of a known
    destination that the configuration does not name, since it may be that destination renamed. This
    says that it is another one: it begins with nothing, and what the other one holds stays there.
    """
    client, settings = relay.client, relay.settings
    configured("destination", name, settings.destinations)
    is_new = not settings.redis.ids.has(name)
    if is_new:
        perform(
            client,
            relay.act(name),
            lambda _: add_destinations(client, settings, [name]),
            is_counted=False,
        )
    told = f"{name} is known now" if is_new else f"{name} was known already"
    return Result({"name": name, "changed": is_new}, told)


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
            raise UsageWrong(f"{rename_hint(old, new)}.")
        _refuse_without_capacity(client)
        relay.confirm(f"Change {plural(numbering.count, 'partition')} to {count:,}?")
    renumbering = Renumbering(client, settings, count, _tell)

    def copy(doing: Doing) -> Carried:
        done = renumbering.run()
        doing.count = done.deliveries
        return done

    before = numbering.count
    done = perform(client, relay.act(str(count), **{"from": before}), copy)
    told = f"{plural(before, 'partition')} became {count:,}: {done}"
    if before == count and not numbering.target:
        told = f"Redis has {plural(count, 'partition')} already."
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


def _refuse_without_capacity(client: Redis) -> None:
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
            name: _spread([one for one in found if one.partition.destination == name])
            for name in known_destinations(client, settings)
        }
    }
    lines = [_headline(numbering)]
    for name, spread in document["destinations"].items():
        lines.append(
            f"{name}: {plural(spread['waiting'], 'waiting delivery', 'waiting deliveries')},"
            f" {spread['least']:,} to {spread['most']:,} in a partition;"
            f" {plural(spread['letters'], 'dead letter')}"
        )
    if count is not None:
        document["to"] = count
        lines.append(
            f"All of it, and the ledger, would go to {plural(count, 'new partition')};"
            f" nothing was changed."
        )
    return Result(document, *lines)


def _headline(numbering: Numbering) -> str:
    numbers = numbering.numbers
    shown = (
        f"{plural(numbering.count, 'partition')}, with the numbers {numbers.start} to {numbers[-1]}"
    )
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
