"""Commands reach the masters of their slots, and only what no server has run goes out again."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import (
    ExecAbortError,
    MovedError,
    ReadOnlyError,
    ResponseError,
)

from segrelay.worker.contract.redis.client import NoMaster
from segrelay.worker.contract.redis.masters import (
    ClusterRouter,
    Router,
    SentinelRouter,
    in_tasks,
    read_slots,
    slot_of,
)
from segrelay.worker.contract.redis.url import RedisNode, parse_redis_url

A, B, C = RedisNode("10.0.0.1", 1), RedisNode("10.0.0.1", 2), RedisNode("10.0.0.1", 3)
ONE, OTHER = "{a}x", "{b}x"
SLOT = key_slot(b"{b}")


MOVED = MovedError(f"{SLOT} 10.0.0.1:3")


def slots(of_other: RedisNode) -> list[Any]:
    """Return an answer to CLUSTER SLOTS in which one slot is another node's."""
    ranges = ((0, SLOT - 1, A), (SLOT, SLOT, of_other), (SLOT + 1, 16_383, A))
    return [[first, last, [b"10.0.0.1", node.port]] for first, last, node in ranges]


def master(node: RedisNode, **down: bool) -> dict[str, Any]:
    state = {"ip": node.host, "port": node.port, "is_master": True}
    return {"main": state | {"is_sdown": False, "is_odown": False} | down}


class Server:
    """A server that gives the answers of a list to each command, the last one for ever."""

    def __init__(self, answers: dict[tuple[Any, ...], list[Any]], sent: list[Any]) -> None:
        self.answers, self.sent, self.command_stack = answers, sent, []
        self.connection_pool = self

    def told(self, words: tuple[Any, ...]) -> Any:
        left = self.answers.get(words, [b"OK"])
        return left.pop(0) if len(left) > 1 else left[0]

    def get_connection(self) -> None: ...

    def release(self, _: Any) -> None: ...

    disconnect = get_connection

    def pipeline(self, *, transaction: bool) -> "Server":
        assert not transaction
        return Server(self.answers, self.sent)

    def run(self) -> list[Any]:
        self.sent += [words for words, _ in self.command_stack]
        return [self.told(words) for words, _ in self.command_stack]

    def run_command(self, *words: Any) -> Any:
        answer = self.told(words)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(
    url: str,
    commands: Sequence[tuple[Any, ...]],
    told: list[Any],
    answers: dict[RedisNode, dict[tuple[Any, ...], list[Any]]],
    away_seconds: float = 0.0,
) -> tuple[list[Any], dict[RedisNode, list[Any]]]:
    """Run commands; return their answers, and what each server was sent."""
    kind: Callable[..., Router] = ClusterRouter if "cluster" in url else SentinelRouter
    sent: dict[RedisNode, list[Any]] = {A: [], B: [], C: []}
    asked = {(kind.question,): told}  # type: ignore[attr-defined]
    router = kind(
        parse_redis_url(url),
        lambda node: Server(answers.get(node, {}), sent[node]),
        lambda _: Server(asked, []),
        lambda _: asyncio.sleep(0),
        in_tasks,
        moving_seconds=60.0 if "cluster" in url else 0.0,
        away_seconds=away_seconds,
    )
    found = asyncio.run(router.run([(w, {}) for w in commands], in_multi=False))
    return found, {node: words for node, words in sent.items() if words}


CLUSTER, SENTINELS = "redis+cluster://10.0.0.1:1", "redis+sentinel://10.0.0.1:9/main"


def test_the_slots_are_read_with_the_replicas() -> None:
    told = [
        [0, 8_191, [b"10.0.0.1", 1, b"id", []], [b"10.0.0.1", 3, b"id", []]],
        [8_192, 16_382, [b"", 2, b"id", []]],
    ]

    known = read_slots(told, RedisNode("seed", 9))

    assert known.all == (A, RedisNode("seed", 2))
    assert known.nodes == (A, C, RedisNode("seed", 2))
    assert known.owner(8_191) == A
    with pytest.raises(NoMaster, match="slot 16383"):
        known.owner(16_383)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("HGET", ONE, "f"), ONE),
        (("EVALSHA", "sha", 2, b"{b}\xff", ONE, "x"), OTHER),
        (("MEMORY USAGE", OTHER), OTHER),
        (("XREAD", "COUNT", 5, "STREAMS", OTHER, "{b}y", "0", "0"), OTHER),
        (("TIME",), "{segrelay}"),
    ],
)
def test_the_first_key_tells_the_slot(command: tuple[Any, ...], key: str) -> None:
    assert slot_of(command) == key_slot(key.encode())


@pytest.mark.parametrize("name", ["DBSIZE", "INFO", "SCAN"])
def test_a_command_about_one_server_has_no_slot(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"{name} is about one server only"):
        slot_of((name, "memory"))


SET, SET_OTHER = ("SET", ONE, 1), ("SET", OTHER, 1)


def test_a_transaction_goes_to_one_node_and_again_as_a_whole() -> None:
    first = [("MULTI",), ("HGETALL", ONE), ("EVALSHA", "sha", 1, ONE), ("EXEC",)]
    second = [("MULTI",), ("HGETALL", OTHER), ("EVALSHA", "sha", 1, OTHER), ("EXEC",)]
    aborted = {second[1]: [MOVED], second[2]: [MOVED], ("EXEC",): [ExecAbortError("aborted")]}

    found = run(CLUSTER, [*first, *second], [slots(B), slots(C)], {B: aborted})

    assert found == ([b"OK"] * 8, {A: first, B: second, C: second})


def test_what_was_read_beside_a_refused_write_is_read_from_the_new_master() -> None:
    get = ("GET", ONE)
    answers = {A: {SET: [ReadOnlyError("a replica")], get: [b"old"]}, B: {get: [b"new"]}}

    found, _ = run(SENTINELS, [SET, get], [master(A), master(B)], answers, away_seconds=30)

    assert found == [b"OK", b"new"]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "no Sentinel that can be reached knows a master `main`"),
        (master(A, is_sdown=True), "`main` is down"),
        (ResponseError("ERR"), "no Sentinel that can be reached"),
    ],
)
def test_it_is_said_why_there_is_no_master(told: Any, why: str) -> None:
    with pytest.raises(NoMaster, match=why):
        run(SENTINELS, [SET], [told], {})
