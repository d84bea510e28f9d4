"""The receiver of webhooks beside a rig, as Lytics finds it."""

import httpx

from tests.configuration import table
from tests.ports import own_port
from tests.waiting import until


class Receiver:
    """A receiver at a free port.

    Args:
        secrets: Those that it takes; the first one is used.
    """

    def __init__(self, *secrets):
        self.secrets = secrets or ("the-new-secret",)
        self.port = own_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def table(self, **keys):
        """Return its table of the configuration."""
        listen = f"127.0.0.1:{self.port}"
        return table("producer.webhook", listen=listen, secret=list(self.secrets), **keys)

    def start(self, rig):
        """Start it beside a rig, and wait until it answers; returns its process."""
        started = rig.start_beside("serve")
        until(lambda: answers(f"{self.url}/healthz"), 60)
        return started

    def post(self, content, secret=""):
        """Post payloads; returns the status of the answer, or 0 where there is none."""
        headers = {"X-Segrelay-Secret": secret or self.secrets[0]}
        try:
            url = f"{self.url}/v1/lytics"
            return httpx.post(url, content=content, headers=headers, timeout=60).status_code
        except httpx.TransportError:
            return 0


def answers(url):
    """Say whether somebody answers at an address, and with success."""
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False
