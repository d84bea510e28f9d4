"""A measurement for tests, in a module that loads quickly: each process of a run imports it."""

import os


def own_pid(events: int, at: int = 0) -> dict[str, int]:
    """Return the process id of the measurement, and its arguments."""
    return {"pid": os.getpid(), "events": events, "at": at}
