"""Commands reach the nodes of their slots, and only what no node has run goes out again."""

from typing import Any

import pytest
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ExecAbortError,
    MovedError,
    ResponseError,
    TryAgainError,
)

from segrelay.worker.contract.redis.client import key_slot
from segrelay.worker.contract.redis.cluster import (
    ClusterExchange,
    NoOwner,
    SlotMap,
    read_slots,
    slot_of,
)
from segrelay.worker.contract.redis.url import RedisNode

A, B, C = RedisNode("10.0.0.1", 1), RedisNode("10.0.0.1", 2), RedisNode("10.0.0.1", 3)
ONE, OTHER = "{a}x", "{b}x"


def slots() -> SlotMap:
    known = SlotMap([A] * 16_384, (A, B))
    known.owners[key_slot(b"{b}")] = B
    return known


def exchange(*commands: tuple[Any, ...]) -> ClusterExchange:
    return ClusterExchange.of(slots(), [(words, {}) for words in commands])


def words(groups: dict[RedisNode, list[Any]]) -> dict[RedisNode, list[Any]]:
    return {
        node: [words for call in calls for words, _ in call.sent] for node, calls in groups.items()
    }


def answer(
    running: ClusterExchange, groups: dict[RedisNode, list[Any]], answers: dict[Any, Any]
) -> None:
    def told(node: RedisNode, commands: list[Any]) -> list[Any]:
        return [answers.get((node, words), b"OK") for words, _ in commands]

    for node, calls in groups.items():
        for call in calls:
            running.take(node, call, told(node, call.commands))
        running.of_all.append(told(node, [*running.scripts, *running.waits]))


def test_the_slots_are_read_with_the_replicas_and_from_outside():
    told = [
        [0, 8_191, [b"10.0.0.1", 1, b"id", []], [b"10.0.0.1", 3, b"id", []]],
        [8_192, 16_383, [b"", 2, b"id", []]],
    ]

    known = read_slots(told, RedisNode("seed", 9), {A: RedisNode("outside", 7)})

    assert known.masters == (RedisNode("outside", 7), RedisNode("seed", 2))
    assert known.nodes == (RedisNode("outside", 7), C, RedisNode("seed", 2))
    assert known.owner(8_191) == RedisNode("outside", 7)


def test_a_slot_without_a_node_is_an_error():
    with pytest.raises(NoOwner, match="slot 7"):
        read_slots([[8, 16_383, [b"h", 2]]], A, {}).owner(7)


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
def test_the_first_key_tells_the_slot(command: tuple[Any, ...], key: str):
    assert slot_of(command) == key_slot(key.encode())


def test_commands_go_to_their_nodes_and_each_loads_the_scripts_and_waits_for_replicas():
    load, wait = ("SCRIPT LOAD", "return 1"), ("WAITAOF", 0, 1, 5)
    running = exchange(load, ("SET", ONE, 1), ("SET", OTHER, 1), wait)

    groups = running.groups()

    assert words(groups) == {A: [("SET", ONE, 1)], B: [("SET", OTHER, 1)]}
    answer(running, groups, {(A, wait): [1, 2], (B, wait): [1, 0]})
    assert running.is_over
    assert running.answers() == [b"OK", b"OK", b"OK", [1, 0]]


def test_an_error_of_one_node_about_what_all_get_is_the_answer():
    wait = ("WAITAOF", 0, 1, 5)
    running = exchange(("SET", ONE, 1), ("SET", OTHER, 1), wait)
    error = ResponseError("WAITAOF cannot be used with replica instances")
    answer(running, running.groups(), {(A, wait): [1, 1], (B, wait): error})

    assert running.answers() == [b"OK", b"OK", error]


def test_what_has_moved_goes_to_the_new_node():
    running = exchange(("SET", ONE, 1), ("SET", OTHER, 1))
    moved = MovedError(f"{key_slot(b'{b}')} 10.0.0.1:3")
    answer(running, running.groups(), {(B, ("SET", OTHER, 1)): moved})

    assert not running.is_over
    groups = running.groups()

    assert words(groups) == {C: [("SET", OTHER, 1)]}
    assert running.known.owner(key_slot(b"{b}")) == C


def test_a_key_that_has_gone_ahead_is_asked_for_there_without_a_word_about_the_slot():
    running = exchange(("GET", OTHER))
    answer(
        running, running.groups(), {(B, ("GET", OTHER)): AskError(f"{key_slot(b'{b}')} 10.0.0.1:3")}
    )

    assert not running.is_over
    assert words(running.groups()) == {C: [("ASKING",), ("GET", OTHER)]}
    assert running.known.owner(key_slot(b"{b}")) == B


def test_a_slot_in_between_is_tried_again_after_a_pause():
    running = exchange(("MGET", OTHER, "{b}y"))
    answer(running, running.groups(), {(B, ("MGET", OTHER, "{b}y")): TryAgainError("later")})

    assert not running.is_over
    assert running.must_pause
    assert words(running.groups()) == {B: [("MGET", OTHER, "{b}y")]}


def test_a_transaction_goes_to_one_node_and_again_as_a_whole():
    first = [("MULTI",), ("HGETALL", ONE), ("EVALSHA", "sha", 1, ONE), ("EXEC",)]
    second = [("MULTI",), ("HGETALL", OTHER), ("EVALSHA", "sha", 1, OTHER), ("EXEC",)]
    running = exchange(*first, *second)
    groups = running.groups()
    moved = MovedError(f"{key_slot(b'{b}')} 10.0.0.1:3")

    assert words(groups) == {A: first, B: second}
    aborted = ExecAbortError("aborted")
    answer(running, groups, {(B, second[1]): moved, (B, second[2]): moved, (B, ("EXEC",)): aborted})
    assert not running.is_over
    groups = running.groups()
    assert words(groups) == {C: second}
    answer(running, groups, {(C, ("EXEC",)): [1, 2]})

    assert running.is_over
    assert running.answers() == [*[b"OK"] * 7, [1, 2]]


def test_a_cluster_that_stays_down_is_an_error_of_the_commands_it_refused():
    running = exchange(("GET", ONE), ("GET", OTHER))
    answer(running, running.groups(), {(B, ("GET", OTHER)): ClusterDownError("down")})

    assert not running.is_over
    assert running.must_pause

    first, second = running.answers()
    assert first == b"OK"
    assert isinstance(second, NoOwner)


@pytest.mark.parametrize("name", ["DBSIZE", "INFO", "SCAN"])
def test_a_command_about_one_server_has_no_slot(name: str):
    with pytest.raises(NotImplementedError, match=f"{name} is about one server only"):
        slot_of((name, "memory"))


def test_a_wait_of_an_earlier_round_that_found_no_replica_still_counts():
    waits = ("WAITAOF", 0, 1, 5)
    running = exchange(("SET", ONE, 1), ("SET", OTHER, 1), waits)
    moved = MovedError(f"{key_slot(b'{b}')} 10.0.0.1:3")
    answer(
        running,
        running.groups(),
        {(B, ("SET", OTHER, 1)): moved, (A, waits): [1, 0], (B, waits): [1, 1]},
    )
    answer(running, running.groups(), {(C, waits): [1, 1]})

    assert running.answers()[-1] == [1, 0]
