"""The participants of a chaos run, which feed, disturb and observe the system."""

from __future__ import annotations

from typing import NamedTuple

from ops.chaos.changes.histories import Histories
from ops.chaos.course import Course
from ops.chaos.faults.fault_injector import FaultInjector
from ops.chaos.feeding import Feeder
from ops.chaos.syncing import Regulars
from ops.chaos.watching import Watch


class Participants(NamedTuple):
    """The parts of a chaos run that act on the system or observe it."""

    feeder: Feeder
    injector: FaultInjector
    watch: Watch
    regulars: Regulars
    histories: Histories
    course: Course
