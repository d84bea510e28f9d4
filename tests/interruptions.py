"""One harness for whatever may be killed, or stand still, between any two calls of Redis.

A `Case` is a command with what is there before it. `killed_anywhere` lets it die behind each of its
writes, and gives it again; `standing_anywhere` lets it stand still before its writes while another
process does all of it, and go on then; `interrupted_anywhere` does both. Each time it begins from
the same state.
"""

import re
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from segrelay.worker.contract.keys import ACTS
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.errors import SegrelayError, UsageWrong
from tests.sealed import opened

OF_THE_MOMENT = (b"}lease", b"}wakeup", b"segrelay.live", b"segrelay.backfill", b"segrelay.jobs")
"""Ends of names whose values tell who works, or has to, and nothing of what is kept."""
TIMES = re.compile(r"1[5-9]\d{8}(\d{3}|\d{6})\b|(1[5-9]\d{8}\.\d+)|\d{4}-\d\d-\d\dT[\d:.+]+")
"""Of today, in seconds, ms and µs, and as texts."""


class Killed(BaseException):
    """What a SIGKILL is to a test: nothing that handles errors handles it."""


class InterruptedRedis(Redis):
    """A client that calls `before` before its trip number `at`, and is dead behind it if `dies`."""

    trips, at, dies, is_dead = 0, 0, False, False
    before = staticmethod(lambda: None)
    watch = None

    def lived(self, call):
        if self.is_dead:
            raise Killed
        self.trips += 1
        if self.trips == self.at and not self.dies:
            self.before()
        changes = self.watch and changes_of(self.watch)
        answer = call()
        if self.watch and changes_of(self.watch) != changes:
            self.writing.append(self.trips)
        if self.trips == self.at and self.dies:
            self.is_dead = True
            raise Killed
        return answer

    def run_command(self, *args, **options):
        return self.lived(lambda: super(InterruptedRedis, self).run_command(*args, **options))

    def run_pipeline(self, pipe):
        return self.lived(lambda: super(InterruptedRedis, self).run_pipeline(pipe))


def changes_of(client):
    return client.info("persistence")["rdb_changes_since_last_save"]


@dataclass(frozen=True)
class Case:
    """Something that may be interrupted anywhere, and is given again.

    Args:
        do: All of it, with a client.
        truth: What has to be the same in the end as if nothing had interrupted it.
        prepare: What is there before; called again each time if more than Redis is changed.
        meanwhile: What others do when it was killed, before it is given again.
        again: What is given then; the same by default.
        act: The words of the command in the audit; "" = it keeps none.
        holds: What is true at every moment.
    """

    do: Callable[[Redis], Any]
    truth: Callable[[], Any]
    prepare: Callable[[], Any] | None = None
    meanwhile: Callable[[], Any] = lambda: None
    again: Callable[[Redis], Any] | None = None
    act: str = ""
    holds: Callable[[], Any] = lambda: None


def interrupted_anywhere(client, url, case, *, every=1, times=3):
    """Let it die, and let it stand still."""
    course = course_of(client, url, case)
    killed_anywhere(client, url, case, course, every=every)
    standing_anywhere(client, url, case, course, times=times)


def killed_anywhere(client, url, case, course, *, every=1):
    """Let it die behind each of its writes, give it again, and compare the ends."""
    begin, writes, wanted = course
    before, acts, spared = None, 0, 0
    numbers = [*writes[::every], *({*writes[-1:]} - {*writes[::every]})]
    for number in numbers:
        begin()
        if before is None:
            before, acts = everything(client), kept_acts(client, case)
        with closing(InterruptedRedis.from_url(url, protocol=2)) as dying:
            dying.at, dying.dies = number, True
            with suppress(Killed):
                case.do(dying)
        # On a busy machine it says more often how far it is, and asked more often before than now.
        spared += not dying.is_dead
        case.holds()
        if case.act:
            assert kept_acts(client, case) > acts or everything(client) == before, number
        lapse(client)
        case.meanwhile()
        given_again(client, case)
        found = case.truth()
        assert found == wanted, (number, different(found, wanted))
    assert spared <= max(1, len(numbers) // 10)


def standing_anywhere(client, url, case, course, *, times=3):
    """Let it stand still before its writes while another one does all of it, and go on then."""
    (begin, writes, wanted), spared = course, 0
    for number in writes[:: max(1, len(writes) // times)]:
        begin()

        def others():
            lapse(client)
            given_again(client, case)
            case.meanwhile()
            case.holds()

        with closing(InterruptedRedis.from_url(url, protocol=2)) as stalled:
            stalled.at, stalled.before = number, others
            with suppress(SegrelayError):
                case.do(stalled)
        case.holds()
        if stalled.trips < number:  # it has renewed its lock more often before than now
            spared += 1
            continue
        lapse(client)
        given_again(client, case)
        found = case.truth()
        assert found == wanted, (number, different(found, wanted))
    assert spared <= 1


def given_again(client, case):
    with suppress(UsageWrong):  # what it names is gone, if all was done
        (case.again or case.do)(client)


def beginning(client, case):
    """Return what brings everything back to where it was."""
    if case.prepare:
        return case.prepare
    dumps = dumped(client)
    return lambda: restore(client, dumps)


def course_of(client, url, case):
    """Return what begins it anew, its trips that write, and the truth behind them."""
    begin = beginning(client, case)
    begin()
    case.do(client)  # all scripts are known from now on
    begin()
    with (
        closing(InterruptedRedis.from_url(url, protocol=2)) as counting,
        closing(Redis.from_url(url)) as watch,
    ):
        counting.watch, counting.writing = watch, []
        case.do(counting)
    case.meanwhile()
    if case.again:
        case.again(client)
    wanted = case.truth()
    assert counting.writing
    return begin, counting.writing, wanted


def lapse(client):
    """Let what a process held lapse, as it does after some seconds."""
    for name in client.scan_iter(match="*}lease", count=1_000):
        if client.hexists(name, "token"):
            client.hset(name, "until", 1)
    for name in client.scan_iter(count=1_000, _type="hash"):
        if client.hexists(name, "lock"):
            client.hset(name, "until", 1)


def kept_acts(client, case):
    """Return how often the audit has this command."""
    return sum(act.what == case.act for act in read_acts(client))


def dumped(client):
    names = client.keys("*")
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.dump(name)
        pipe.pttl(name)
    values = pipe.execute()
    return dict(zip(names, zip(values[::2], values[1::2], strict=True), strict=True))


def restore(client, dumps):
    pipe = client.pipeline(transaction=False)
    pipe.flushdb()
    for name, (dump, ttl_ms) in dumps.items():
        pipe.restore(name, max(0, ttl_ms), dump)
    pipe.execute()


READERS = {
    b"hash": lambda pipe, name: pipe.hgetall(name),
    b"stream": lambda pipe, name: pipe.xrange(name),
    b"zset": lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True),
    b"set": lambda pipe, name: pipe.smembers(name),
    b"list": lambda pipe, name: pipe.lrange(name, 0, -1),
    b"string": lambda pipe, name: pipe.get(name),
}


def everything(client):
    """Return all that is kept, but who holds it and what the audit has."""
    names = sorted(
        name
        for name in client.keys("*")
        if not name.endswith(OF_THE_MOMENT) and name != ACTS.encode()
    )
    return {name: value for name, value in values_of(client, names).items() if value}


def values_of(client, names):
    """Return the values of some keys, of whatever kind they are."""
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
    kinds = pipe.execute() if names else []
    for name, kind in zip(names, kinds, strict=True):
        READERS[kind](pipe, name)
    return dict(zip(names, pipe.execute() if names else [], strict=True))


def without_times(found):
    """Return what is kept as texts without times, and the entries of streams without their ids."""
    return {
        name.decode(errors="replace"): TIMES.sub("TIME", repr(_ordered(value)))
        for name, value in found.items()
    }


def _ordered(value):
    value = opened(value)
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, list) and value and isinstance(value[0][1], dict):
        return sorted(sorted(fields.items()) for _, fields in value)
    return sorted(value) if isinstance(value, set) else value


def different(found, wanted):
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return (found, wanted)
    names = [name for name in found | wanted if found.get(name) != wanted.get(name)]
    return {name: (found.get(name), wanted.get(name)) for name in names}
