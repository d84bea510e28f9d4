"""Copies of all that a Redis holds, as JSON that every server and version can take in again."""

import gzip
import socket
from base64 import b64decode, b64encode
from pathlib import Path

import orjson
from redis import Redis

_HOST = socket.gethostname().encode()


def _text(value):
    if isinstance(value, bytes):
        return b64encode(value.replace(_HOST, b"a-machine")).decode()
    if isinstance(value, list | tuple):
        return [_text(one) for one in value]
    return value


def _value(text):
    return [_value(one) for one in text] if isinstance(text, list) else b64decode(text)


def _flat(found):
    return [part for pair in found.items() for part in pair]


READ = {
    b"string": lambda client, key: [client.get(key)],
    b"hash": lambda client, key: _flat(client.hgetall(key)),
    b"set": lambda client, key: sorted(client.smembers(key)),
    b"list": lambda client, key: client.lrange(key, 0, -1),
    b"zset": lambda client, key: [
        part
        for member, score in client.zrange(key, 0, -1, withscores=True)
        for part in (repr(score).encode(), member)
    ],
    b"stream": lambda client, key: [[e, _flat(fields)] for e, fields in client.xrange(key)],
}
WRITE = {"string": "SET", "hash": "HSET", "set": "SADD", "list": "RPUSH", "zset": "ZADD"}


def write_copy(client: Redis, path: Path, **more: object) -> None:
    """Write a copy of all keys; what is said beside them is kept with them."""
    keys = []
    for key in sorted(client.scan_iter(count=1_000)):
        kind = client.type(key)
        one = {
            "key": _text(key),
            "type": kind.decode(),
            "ttl_ms": max(0, client.pttl(key)),
            "value": _text(READ[kind](client, key)),
        }
        if kind == b"stream":
            one["last"] = client.xinfo_stream(key)["last-generated-id"].decode()
        keys.append(one)
    path.write_bytes(gzip.compress(orjson.dumps({**more, "keys": keys}), mtime=0))


def load_copy(client: Redis, path: Path) -> dict:
    """Put a copy into an empty Redis; returns what was said beside it."""
    found = orjson.loads(gzip.decompress(path.read_bytes()))
    for one in found.pop("keys"):
        key = b64decode(one["key"])
        if one["type"] == "stream":
            for entry, fields in one["value"]:
                client.execute_command("XADD", key, b64decode(entry), *_value(fields))
            client.execute_command("XSETID", key, one["last"])
        else:
            client.execute_command(WRITE[one["type"]], key, *_value(one["value"]))
        if one["ttl_ms"]:
            client.pexpire(key, one["ttl_ms"])
    return found
