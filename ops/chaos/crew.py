"""Who takes part in a run."""

from __future__ import annotations

from typing import NamedTuple

from ops.chaos.feeding import Feeder
from ops.chaos.saboteur import Saboteur
from ops.chaos.syncing import Regulars
from ops.chaos.watching import Watch


class Crew(NamedTuple):
    """Those who bring, break, watch, and join and leave."""

    feeder: Feeder
    saboteur: Saboteur
    watch: Watch
    regulars: Regulars
