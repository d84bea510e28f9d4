"""A chat that takes the messages about problems."""

from tests.configuration import table
from tests.journeys.endpoint import Endpoint
from tests.journeys.judging import NAMED_SECONDS
from tests.waiting import until

PROBLEM, OVER = "problem", "problem_over"


class Channel(Endpoint):
    """A chat that takes every message."""

    def __init__(self, answer=lambda _: (200, {})):
        super().__init__(answer)

    def table(self, severity="ill"):
        return table("operate.notify", url=f"{self.url}/hook", after="1s", severity=severity)

    def messages(self, name=""):
        """Return the messages about a problem, or all."""
        taken = [came.body for came, status in self.came if status == 200]
        return [one for one in taken if name in ("", one["problem"]["name"])]

    def events(self, name=""):
        """Return what was announced about a problem, or about all."""
        return [one["event"] for one in self.messages(name)]

    def told(self):
        """Return each message as a line: the problem's name, and its cause in words."""
        return [
            f"{each['problem']['name']}: {each['problem']['message']}" for each in self.messages()
        ]

    def announced(self, name, *events):
        """Wait until these messages about a problem have come, and no other."""
        until(lambda: self.events(name) == list(events), NAMED_SECONDS)
