"""Clients of Redis that are killed or stand still at any round trip, and copies of its keys."""

from redis import Redis
from redis.client import Pipeline

MOST_TRIPS = 10**9


class Killed(BaseException):
    """What a SIGKILL is to a test: nothing that handles errors handles it."""


class DyingPipeline(Pipeline):
    def execute(self, raise_on_error=True):
        return self.life.lived(lambda: super(DyingPipeline, self).execute(raise_on_error))


class DyingRedis(Redis):
    """A client that dies before, or after, its n-th round trip, and is dead from then on."""

    left, only_then = MOST_TRIPS, False

    def lived(self, call):
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.only_then):
            raise Killed
        answer = call()
        if self.left == 0:
            raise Killed
        return answer

    def execute_command(self, *args, **options):
        return self.lived(lambda: super(DyingRedis, self).execute_command(*args, **options))

    def pipeline(self, transaction=True, shard_hint=None):
        pipe = DyingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.life = self
        return pipe


class StalledRedis(DyingRedis):
    """A client whose process stands still before its n-th round trip, while others go on."""

    meanwhile = None

    def lived(self, call):
        self.left -= 1
        if self.left == 0:
            self.meanwhile()
        return call()


def decoded(client, name):
    match client.type(name):
        case b"hash":
            return client.hgetall(name)
        case b"stream":
            return client.xrange(name)
        case b"zset":
            return client.zrange(name, 0, -1, withscores=True)
        case b"set":
            return client.smembers(name)
        case _:
            return client.get(name)


def everything(client):
    names = (name for name in client.keys("*") if not name.endswith((b"}lease", b"}bell")))
    found = {name: decoded(client, name) for name in names}
    return {name: value for name, value in found.items() if value}


def restore(client, dumps):
    client.flushdb()
    for name, dump in dumps.items():
        client.restore(name, 0, dump)
