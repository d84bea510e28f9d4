"""Bodies that are refused: halving them, until it is clear which deliveries are to blame.

What is left of it when a batch ends is remembered as the width of the deliveries' next request, so
that a slow destination, or a low rate, does not make it start anew each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from worker.contract.words import Death
from worker.core.backoff import Setback
from worker.destinations.api import Answer
from worker.destinations.sending import NoAnswer
from worker.packing import Halving, Packer, Request
from worker.partition import Settlement
from worker.preparing import Parcel
from worker.settling import Settler
from worker.state import State

SUSPECTS_AT_MOST: Final = 8
"""So many of one body refused alone, for one cause, and nothing taken: the trigger is wrong."""
_NEVER_DONE: Final = 1 << 60


@dataclass(slots=True)
class Refusals:
    """Halves refused bodies, for one batch."""

    settler: Settler
    state: State
    _halvings: list[Halving] = field(default_factory=list)
    _alone: dict[str, Halving] = field(default_factory=dict)

    async def refused(
        self, request: Request, message: str, answer: Answer | NoAnswer, packer: Packer
    ) -> None:
        """Halve; a delivery refused alone is suspect until something else went through."""
        halving = request.halving or self.begin(request)
        if len(request.packed) > 1:
            packer.split(request, halving)
            return
        halving.open_parts -= 1
        parcel = request.parcels[0]
        obituary = self.settler.obituary(parcel, Death.REFUSED, message, answer)
        halving.suspects.append((parcel, obituary))
        causes = {suspect[1].cause for suspect in halving.suspects}
        if halving.others_went_through or halving.open_parts <= 0:
            await self._bury(halving, packer)
        elif len(halving.suspects) >= SUSPECTS_AT_MOST and len(causes) == 1:
            await self.settler.streaks.pause(request.trigger, obituary)
            self.settler.leave(request.trigger, packer)

    async def part_taken(self, request: Request, packer: Packer) -> None:
        """A part of a halved body was taken: what was refused alone is to blame for itself."""
        halving = request.halving
        if halving:
            halving.open_parts -= 1
        for each in (halving, self._alone.get(request.trigger)):
            if each:
                each.others_went_through = True
                await self._bury(each, packer)

    async def finish(self, packer: Packer) -> None:
        """Bury who was refused alone in an earlier batch too, and remember what is not done."""
        for halving in self._alone.values():
            if not self._is_left(halving):
                await self._bury(halving, packer)
        widths = dict(packer.halves_left())
        widths |= {parcel: 1 for halving in self._halvings for parcel, _ in halving.suspects}
        setbacks = {
            parcel.delivery.place: self._narrowed(parcel, width)
            for parcel, width in widths.items()
            if parcel.delivery.trigger not in self.state.paused
        }
        if setbacks:
            await self.settler.write(Settlement(setbacks=setbacks))
            self.state.setbacks.update(setbacks)

    def begin(self, request: Request) -> Halving:
        """Begin to halve; those whom an earlier batch has left alone share one fate."""
        parcel = request.parcels[0]
        if len(request.packed) == 1 and parcel.delivery.place in self.state.setbacks:
            return self._alone.setdefault(request.trigger, Halving(open_parts=_NEVER_DONE))
        halving = Halving()
        self._halvings.append(halving)
        return halving

    def _is_left(self, halving: Halving) -> bool:
        return any(p.delivery.trigger in self.state.paused for p, _ in halving.suspects)

    def _narrowed(self, parcel: Parcel, width: int) -> Setback:
        known = self.state.setbacks.get(parcel.delivery.place)
        return replace(known, width=width) if known else Setback(width)

    async def _bury(self, halving: Halving, packer: Packer) -> None:
        deaths = [(parcel.delivery, obituary) for parcel, obituary in halving.suspects]
        halving.suspects.clear()
        if deaths:
            await self.settler.write(Settlement(settled=await self.settler.buried(deaths, packer)))
