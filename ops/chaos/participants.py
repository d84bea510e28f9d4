"""Everybody who takes part in a run."""

from __future__ import annotations

from typing import NamedTuple

from ops.chaos.changes.histories import Histories
from ops.chaos.course import Course
from ops.chaos.faults.fault_injector import FaultInjector
from ops.chaos.feeding import Feeder
from ops.chaos.syncing import Regulars
from ops.chaos.watching import Watch


class Participants(NamedTuple):
    """Those who bring events in, break things, watch, join, give commands, and measure."""

    feeder: Feeder
    injector: FaultInjector
    watch: Watch
    regulars: Regulars
    histories: Histories
    course: Course
