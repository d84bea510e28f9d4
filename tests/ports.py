"""Ports for servers that tests start beside each other."""

import secrets
import socket

from segrelay.ops.embedded import LOOPBACK, free_port

_PORTS = range(10_000, 20_000)
"""Below those that embedded servers choose from."""


def own_port() -> int:
    """Return a free port that no other test of this machine gets before this process ends."""
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # no server here takes datagrams
    while True:
        port = free_port(secrets.choice(_PORTS))
        try:
            claim.bind((LOOPBACK, port))
        except OSError:
            continue
        claim.detach()  # it stays open
        return port
