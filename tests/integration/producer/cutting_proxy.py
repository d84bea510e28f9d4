"""A TCP proxy in front of Redis that loses one answer, as a network does."""

import selectors
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

QUIET_SECONDS = 0.1
READ_BYTES = 1 << 20


class CuttingProxy:
    """Passes everything on until it is told to cut.

    Args:
        url: Of the Redis on loopback.
    """

    def __init__(self, url):
        self._port = urlsplit(url).port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._marker = b""
        self._share = 1.0
        self._then = None
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self.cuts = 0
        self.url = url.replace(f":{self._port}", f":{self._server.getsockname()[1]}")

    def cut(self, marker, *, share=1.0, then=None):
        """Lose the answer to the next commands that hold the marker.

        Args:
            marker: Bytes of a command.
            share: How much of what the client sends with it reaches Redis.
            then: Called when the answer is lost and the client does not know it yet.
        """
        self._share, self._then, self._marker = share, then, marker

    def close(self):
        self._server.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                redis = socket.create_connection(("127.0.0.1", self._port))
                thread = threading.Thread(target=self._pass_on, args=(client, redis), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, client, redis):
        with client, redis, selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(client, selectors.EVENT_READ, redis)
            ready.register(redis, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(READ_BYTES)
                    if not data:
                        return
                    if key.fileobj is client and self._marker and self._marker in data:
                        self._lose_answer(client, redis, data)
                        return
                    key.data.sendall(data)

    def _lose_answer(self, client, redis, data):
        self._marker = b""
        data += _rest(client)
        redis.sendall(data[: int(len(data) * self._share)])
        _rest(redis)
        self.cuts += 1
        if self._then:
            self._then()


def _rest(sender):
    """Read until nothing more comes."""
    sender.settimeout(QUIET_SECONDS)
    parts = []
    with suppress(TimeoutError):
        while data := sender.recv(READ_BYTES):
            parts.append(data)
    return b"".join(parts)
