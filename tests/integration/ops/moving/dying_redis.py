"""Clients of Redis that are killed or stand still at any round trip, and copies of its keys."""

from contextlib import closing, suppress

import pytest

from segrelay.worker.contract.redis.client import Pipeline, Redis
from segrelay.worker.errors import OperationsMustAct

MOST_TRIPS = 10**9
LEAST_TRIPS = 20


class Killed(BaseException):
    """What a SIGKILL is to a test: nothing that handles errors handles it."""


class DyingPipeline(Pipeline):
    def run(self, *, raise_on_error):
        run = super().run
        return self.life.lived(lambda: run(raise_on_error=raise_on_error))


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

    def run_command(self, *args, **options):
        return self.lived(lambda: super(DyingRedis, self).run_command(*args, **options))

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
    names = (name for name in client.keys("*") if not name.endswith((b"}lease", b"}wakeup")))
    found = {name: decoded(client, name) for name in names}
    return {name: value for name, value in found.items() if value}


def restore(client, dumps):
    client.flushdb()
    for name, dump in dumps.items():
        client.restore(name, 0, dump)


def deaths(client, url, act, *, every, seen=everything):
    """Let an act be killed at its round trips, one after the other, always from the same state.

    Yields the number of each trip, and what is seen after an act that nobody kills.
    """
    dumps = {name: client.dump(name) for name in client.keys("*")}
    with closing(DyingRedis.from_url(url)) as dying:
        act(dying)
        wanted = seen(client)
        restore(client, dumps)
        for number in range(1, trips_of(act, dying), every):  # all scripts are known now
            restore(client, dumps)
            dying.left, dying.only_then = number, number % 2 == 0
            with pytest.raises(Killed):
                act(dying)
            yield number, wanted


def stalls(client, url, act, meanwhile, *, first, times):
    """Let an act stand still at some of its round trips while others go on; yields their numbers.

    Each time it begins from the same state, and it may end with a refusal.
    """
    dumps = {name: client.dump(name) for name in client.keys("*")}
    with closing(DyingRedis.from_url(url)) as counting:
        trips = trips_of(act, counting)
    with closing(StalledRedis.from_url(url)) as stalled:
        stalled.meanwhile = meanwhile
        for number in range(first, trips, max(1, trips // times)):
            restore(client, dumps)
            stalled.left = number
            with suppress(OperationsMustAct):
                act(stalled)
            yield number


def trips_of(act, counting):
    counting.left = MOST_TRIPS
    act(counting)
    trips = MOST_TRIPS - counting.left
    assert trips > LEAST_TRIPS
    return trips
