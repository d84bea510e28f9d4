"""Watches what goes to a Redis, and finds calls that a Cluster would refuse: keys of two slots."""

import re
import socket
from contextlib import suppress
from itertools import islice
from threading import Event, Thread
from typing import Final

import hiredis

from segrelay.worker.contract.redis.client import key_slot
from segrelay.worker.contract.redis.url import parse_redis_url

_LINE = re.compile(rb'^[\d.]+ \[\d+ (\S+)\] "(\w+)"(.*)$', re.DOTALL)
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_CONTROL = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
_SCRIPTS = frozenset({b"EVAL", b"EVALSHA", b"FCALL"})
_MANY_KEYS = frozenset({b"MGET", b"DEL", b"UNLINK", b"EXISTS", b"RENAME", b"SUNION", b"SINTER"})
_TRANSACTION = frozenset({b"MULTI", b"EXEC", b"DISCARD"})
_END = b"the end of what was watched"
_READ_EVERY_SECONDS: Final = 0.5
"""The server keeps what is not read. To read each command at once would disturb what is tested."""


class HashSlotWatch:
    """Reads the commands that a server runs, and remembers which had keys of two slots.

    A transaction that begins with a script is one of `run_each`, for which Redis syncs its disk
    once: each of its calls is repeatable alone, and a client of a Cluster parts them. Keys without
    a hash tag are none of ours: Celery's broker has them.
    """

    def __init__(self, url: str) -> None:
        address = parse_redis_url(url)
        self._socket = socket.create_connection(address.hosts[0])
        login = [one.encode() for one in (address.username, address.password) if one]
        self._login = (b"AUTH", *login) if login else ()
        self._reader = hiredis.Reader()
        self._transactions: dict[bytes, list[tuple[bytes, list[bytes]]]] = {}
        self.seen = 0
        self.refused: list[str] = []
        if self._login:
            self._ask(*self._login)
        self._ask(b"MONITOR")
        self._ending = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Read all that was run until now."""
        with socket.create_connection(self._socket.getpeername()) as other, suppress(OSError):
            if self._login:
                other.sendall(hiredis.pack_command(self._login))
            other.sendall(hiredis.pack_command((b"ECHO", _END)))
            self._ending.set()
            self._thread.join(60)
        self._socket.close()

    def _ask(self, *words: bytes) -> None:
        self._socket.sendall(hiredis.pack_command(words))
        while (answer := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65_536))
        if isinstance(answer, Exception):
            raise answer

    def _watch(self) -> None:
        with suppress(OSError):
            while True:
                line = self._reader.gets()
                if line is False:
                    self._ending.wait(_READ_EVERY_SECONDS)
                    read = self._socket.recv(1_000_000)
                    if not read:
                        return
                    self._reader.feed(read)
                elif b'"ECHO"' in line and _END in line:
                    return
                else:
                    self._look(line)

    def _look(self, line: bytes) -> None:
        found = _LINE.match(line)
        if not found or found[1] == b"lua":
            return
        client, name = found[1], found[2].upper()
        if name == b"MULTI":
            self._transactions[client] = []
        elif name in _TRANSACTION:
            self._judge_transaction(self._transactions.pop(client, []))
        elif client in self._transactions:
            self._transactions[client].append((name, _keys(name, found[3])))
        elif name in _SCRIPTS or name in _MANY_KEYS:
            self._judge(name, _keys(name, found[3]))

    def _judge_transaction(self, calls: list[tuple[bytes, list[bytes]]]) -> None:
        if calls and calls[0][0] in _SCRIPTS:
            for name, keys in calls:
                self._judge(name, keys)
        else:
            self._judge(b"MULTI", [key for _, keys in calls for key in keys])

    def _judge(self, name: bytes, keys: list[bytes]) -> None:
        ours = [key for key in keys if key.startswith(b"{")]
        self.seen += bool(ours)
        if len({key_slot(key) for key in ours}) > 1:
            self.refused.append(f"{name.decode()} {ours}")


def _keys(name: bytes, text: bytes) -> list[bytes]:
    words = (_ESCAPE.sub(_plain, word[1]) for word in _WORD.finditer(text))
    if name in _SCRIPTS:
        _, count = next(words), int(next(words))
        return list(islice(words, count))
    return list(words) if name in _MANY_KEYS else list(islice(words, 1))


def _plain(escape: re.Match[bytes]) -> bytes:
    text = escape[1]
    return bytes([int(text[1:], 16)]) if len(text) == 3 else _CONTROL.get(text, text)
