"""Counting requests in a sliding window."""

from __future__ import annotations

from collections import deque


class SlidingWindow:
    """The times of requests in a sliding window, and the largest number in any window.

    Attributes:
        highest: The most that any window held since the start.
    """

    def __init__(self) -> None:
        self.highest = 0
        self._times: deque[float] = deque()

    def count(self, now: float, window_seconds: float) -> int:
        """Return the number of requests in the window that ends now."""
        times = self._times
        while times and times[0] <= now - window_seconds:
            times.popleft()
        return len(times)

    def add(self, now: float, window_seconds: float) -> None:
        """Count a request that arrives now."""
        self._times.append(now)
        self.highest = max(self.highest, self.count(now, window_seconds))

    def wait_seconds(self, now: float, window_seconds: float) -> float:
        """Return the seconds until the oldest request leaves the window."""
        return max(0.0, self._times[0] + window_seconds - now) if self._times else 0.0
