"""Commands reach the nodes of their slots, and only what no node has run goes out again."""

from typing import Any

import pytest
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ExecAbortError,
    MovedError,
    NoScriptError,
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
    return {node: [call.words for call in calls] for node, calls in groups.items()}


def answer(
    running: ClusterExchange, groups: dict[RedisNode, list[Any]], answers: dict[Any, Any]
) -> None:
    for node, calls in groups.items():
        for call in calls:
            running.take(node, call, answers.get((node, call.words), b"OK"))


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


def test_commands_go_to_their_nodes_and_waiting_follows_to_each():
    running = exchange(("SET", ONE, 1), ("SET", OTHER, 1), ("WAITAOF", 0, 1, 5))

    groups = running.groups()

    assert words(groups) == {
        A: [("SET", ONE, 1), ("WAITAOF", 0, 1, 5)],
        B: [("SET", OTHER, 1), ("WAITAOF", 0, 1, 5)],
    }
    answer(running, groups, {(A, ("WAITAOF", 0, 1, 5)): [1, 2], (B, ("WAITAOF", 0, 1, 5)): [1, 0]})
    assert not running.end_round()
    assert running.answers() == [b"OK", b"OK", [1, 0]]


def test_what_has_moved_goes_to_the_new_node_and_is_waited_for_there():
    running = exchange(("SET", ONE, 1), ("SET", OTHER, 1), ("WAITAOF", 0, 1, 5))
    moved = MovedError(f"{key_slot(b'{b}')} 10.0.0.1:3")
    waits = ("WAITAOF", 0, 1, 5)
    answer(
        running,
        running.groups(),
        {(B, ("SET", OTHER, 1)): moved, (A, waits): [1, 1], (B, waits): [1, 0]},
    )

    assert running.end_round()
    groups = running.groups()

    assert words(groups) == {C: [("SET", OTHER, 1), waits]}
    assert running.known.owner(key_slot(b"{b}")) == C


def test_a_key_that_has_gone_ahead_is_asked_for_there_without_a_word_about_the_slot():
    running = exchange(("GET", OTHER))
    answer(
        running, running.groups(), {(B, ("GET", OTHER)): AskError(f"{key_slot(b'{b}')} 10.0.0.1:3")}
    )

    assert running.end_round()
    [(node, [call])] = running.groups().items()

    assert (node, call.asking) == (C, C)
    assert running.known.owner(key_slot(b"{b}")) == B


def test_a_slot_in_between_is_tried_again_after_a_pause():
    running = exchange(("MGET", OTHER, "{b}y"))
    answer(running, running.groups(), {(B, ("MGET", OTHER, "{b}y")): TryAgainError("later")})

    assert running.end_round()
    assert running.must_pause
    assert words(running.groups()) == {B: [("MGET", OTHER, "{b}y")]}


def test_a_script_is_loaded_on_all_masters_and_again_where_one_does_not_know_it():
    load, run = ("SCRIPT LOAD", "return 1"), ("EVALSHA", "sha", 1, OTHER)
    running = exchange(load, run)
    groups = running.groups()

    assert words(groups) == {A: [load], B: [load, run]}
    answer(running, groups, {(B, run): NoScriptError("No matching script.")})
    assert running.end_round()
    assert words(running.groups()) == {A: [load], B: [load, run]}


def test_a_transaction_goes_to_one_node_and_again_as_a_whole():
    first = [("MULTI",), ("HGETALL", ONE), ("EVALSHA", "sha", 1, ONE), ("EXEC",)]
    second = [("MULTI",), ("HGETALL", OTHER), ("EVALSHA", "sha", 1, OTHER), ("EXEC",)]
    running = exchange(*first, *second)
    groups = running.groups()
    moved = MovedError(f"{key_slot(b'{b}')} 10.0.0.1:3")

    assert words(groups) == {A: first, B: second}
    aborted = ExecAbortError("aborted")
    answer(running, groups, {(B, second[1]): moved, (B, second[2]): moved, (B, ("EXEC",)): aborted})
    assert running.end_round()
    groups = running.groups()
    assert words(groups) == {C: second}
    answer(running, groups, {(C, ("EXEC",)): [1, 2]})

    assert not running.end_round()
    assert running.answers() == [*[b"OK"] * 7, [1, 2]]


def test_an_unknown_script_that_the_exchange_does_not_load_is_an_answer():
    running = exchange(("EVALSHA", "sha", 1, OTHER))
    unknown = NoScriptError("No matching script.")
    answer(running, running.groups(), {(B, ("EVALSHA", "sha", 1, OTHER)): unknown})

    assert not running.end_round()
    assert running.answers() == [unknown]


def test_a_cluster_that_stays_down_is_an_error_of_the_commands_it_refused():
    running = exchange(("GET", ONE), ("GET", OTHER))
    answer(running, running.groups(), {(B, ("GET", OTHER)): ClusterDownError("down")})

    assert running.end_round()
    assert running.is_down
    running.give_up()

    first, second = running.answers()
    assert first == b"OK"
    assert isinstance(second, NoOwner)


def test_what_all_masters_tell_is_the_sum_or_the_fullest_or_the_first_error():
    running = exchange(("DBSIZE",), ("INFO",), ("FLUSHALL",))
    error = ValueError("no")
    info = {A: {"used_memory": 5, "maxmemory": 10}, B: {"used_memory": 6, "maxmemory": 100}}
    told = {(node, ("DBSIZE",)): node.port for node in (A, B)}
    told |= {(node, ("INFO",)): one for node, one in info.items()}
    answer(running, running.groups(), told | {(B, ("FLUSHALL",)): error})

    assert running.answers() == [3, info[A], error]


def test_a_wait_of_an_earlier_round_that_found_no_replica_still_counts():
    waits = ("WAITAOF", 0, 1, 5)
    running = exchange(("SET", ONE, 1), ("SET", OTHER, 1), waits)
    moved = MovedError(f"{key_slot(b'{b}')} 10.0.0.1:3")
    answer(
        running,
        running.groups(),
        {(B, ("SET", OTHER, 1)): moved, (A, waits): [1, 0], (B, waits): [1, 1]},
    )
    running.end_round()
    answer(running, running.groups(), {(C, waits): [1, 1]})

    assert running.answers()[-1] == [1, 0]
