"""How many may die of one cause in a row, asked of a Redis whose answers get lost."""

import asyncio
from typing import Any

import pytest

from segrelay.worker.adapters.redis.shared_keys import RedisStreaks
from segrelay.worker.batch.delivery import Failure
from segrelay.worker.contract.redis.connection import connect, connect_async
from segrelay.worker.contract.triggers import read_pauses
from segrelay.worker.contract.words import DEATHS_IN_A_ROW, Death
from segrelay.worker.errors import RedisUnavailable

FAILURE = Failure(Death.REFUSED, "no")


class LosesAnswers:
    """A client whose first answers are lost after Redis has done what was asked."""

    def __init__(self, client: Any, lost: int) -> None:
        self._client = client
        self.lost = lost

    async def execute_command(self, *words: Any) -> Any:
        answer = await self._client.execute_command(*words)
        if self.lost:
            self.lost -= 1
            raise RedisUnavailable("The connection was cut.")
        return answer


def asked(url: str, counts: list[int], *, lost: int = 0, may_repeat: bool = True) -> list[int]:
    async def run() -> list[int]:
        async with connect_async(url) as client:
            await RedisStreaks(client).may_die("vip", FAILURE, 0)
            losing: Any = LosesAnswers(client, lost)
            streaks = RedisStreaks(losing, may_repeat=lambda: may_repeat)
            return [await streaks.may_die("vip", FAILURE, count) for count in counts]

    return asyncio.run(run())


def test_a_question_whose_answer_is_lost_is_asked_again_and_counts_once(redis_url: str) -> None:
    assert asked(redis_url, [DEATHS_IN_A_ROW - 1], lost=3) == [DEATHS_IN_A_ROW - 1]
    with connect(redis_url) as client:
        assert not read_pauses(client).triggers

    assert asked(redis_url, [5, 1]) == [1, 0]
    with connect(redis_url) as client:
        assert list(read_pauses(client).triggers) == ["vip"]


def test_once_time_is_up_it_is_not_repeated(redis_url: str) -> None:
    with pytest.raises(RedisUnavailable):
        asked(redis_url, [1], lost=3, may_repeat=False)
