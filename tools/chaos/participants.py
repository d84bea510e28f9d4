"""The participants of a chaos run, which feed, disturb and observe the system."""

from __future__ import annotations

from typing import NamedTuple

from tools.chaos.changes.histories import Histories
from tools.chaos.course import Course
from tools.chaos.faults.fault_injector import FaultInjector
from tools.chaos.feeding import Feeder
from tools.chaos.syncing import Regulars
from tools.chaos.watching import Watch


class Participants(NamedTuple):
    """The parts of a chaos run that act on the system or observe it."""

    feeder: Feeder
    injector: FaultInjector
    watch: Watch
    regulars: Regulars
    histories: Histories
    course: Course
