"""Tokens of OAuth2 on a real Valkey: one for all processes, renewed by one, sealed."""

import asyncio
import time
from functools import partial

from segrelay.worker.adapters.redis.tokens import RedisTokens
from segrelay.worker.adapters.sender import AuthorizedSender
from segrelay.worker.contract.redis.connection import connect, connect_async
from segrelay.worker.contract.settings import Authorization
from segrelay.worker.contract.settings.values import Secret
from segrelay.worker.core.verdicts import AccessRefused, Failed, TokenReplaced
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.oauth2 import AccessToken, Granted
from segrelay.worker.destinations.sending import NoToken, OutgoingRequest
from tests.conformance.drain.fake_sender import FakeSender

AUTHORIZATION = Authorization(
    name="crm",
    type="oauth2",
    token_url="https://login.example.com/token",
    client_id=Secret("literal", "us"),
    client_secret=Secret("literal", "a-secret-of-nobody"),
)
REQUEST = OutgoingRequest(
    "https://crm.example.com/people",
    {"Authorization": "Bearer {token}"},
    {"key": "{token}"},
    b"{}",
    "http",
    authorization="crm",
)


class Issuer:
    """Issues `token-1`, `token-2`, …"""

    def __init__(self, seconds=600.0, slow=0.0):
        self.issued = 0
        self.seconds = seconds
        self.slow = slow
        self.answer = None
        self.asked_with = []

    async def __call__(self, refresh):
        await asyncio.sleep(self.slow)
        self.asked_with.append(refresh)
        if self.answer is not None:
            return self.answer
        self.issued += 1
        return Granted(f"token-{self.issued}", self.seconds)


def with_processes(redis_url, number, act, issuer, **more):
    async def run():
        clients = [connect_async(redis_url) for _ in range(number)]
        try:
            return await act(
                [
                    RedisTokens(one, AUTHORIZATION, issuer, monotonic=time.monotonic, **more)
                    for one in clients
                ]
            )
        finally:
            for client in clients:
                await client.aclose()

    return asyncio.run(run())


def test_the_refresh_token_that_came_last_is_used_next_and_outlives_its_token(redis_url):
    issuer = Issuer()

    async def act(processes):
        one, other = processes
        issuer.answer = Granted("token-1", 0.3, "again-1")
        await one.token()
        await asyncio.sleep(0.5)
        issuer.answer = Granted("token-2", 600.0)
        return await other.token()

    found = with_processes(redis_url, 2, act, issuer)

    assert (found.text, issuer.asked_with) == ("token-2", ["", "again-1"])
    with connect(redis_url) as client:
        [key] = client.keys("*token*")
        assert client.pttl(key) == -1
        assert not [text for text in client.hgetall(key).values() if b"again" in text]


def test_a_refresh_token_that_came_to_a_process_that_stood_still_is_not_lost(redis_url):
    issuer = Issuer(slow=0.6)

    async def act(processes):
        one, other, third = processes
        issuer.answer = Granted("token-1", 0.1, "again-1")
        late = asyncio.ensure_future(one._taken("0"))
        await asyncio.sleep(0.3)  # its turn is over before its answer comes
        issuer.slow, issuer.answer = 0, AccessRefused("used already")
        await other._taken("0")
        issuer.answer = Granted("token-1", 0.1, "again-1")
        await late
        await asyncio.sleep(0.3)
        issuer.answer = Granted("token-2", 600.0)
        return await third.token()

    found = with_processes(redis_url, 3, act, issuer, turn_seconds=0.2)

    assert (found.text, issuer.asked_with[-1]) == ("token-2", "again-1")


def test_all_processes_share_one_token(redis_url):
    issuer = Issuer(slow=0.2)

    async def act(processes):
        return await asyncio.gather(*(one.token() for one in processes for _ in range(3)))

    found = with_processes(redis_url, 8, act, issuer)

    assert {token.text for token in found} == {"token-1"}
    assert issuer.issued == 1


def test_one_process_renews_before_the_end_while_the_others_go_on(redis_url):
    issuer = Issuer(seconds=2.0)

    async def act(processes):
        await asyncio.gather(*(one.token() for one in processes))
        issuer.slow = 0.3
        await asyncio.sleep(1.6)
        begun = time.monotonic()
        used = await asyncio.gather(*(one.token() for one in processes))
        taken = time.monotonic() - begun
        later = await asyncio.gather(*(one.token() for one in processes))
        return used, later, taken

    used, later, _ = with_processes(redis_url, 5, act, issuer)

    assert issuer.issued == 2
    assert sorted(token.text for token in used) == ["token-1"] * 4 + ["token-2"]
    assert {token.text for token in later} == {"token-2"}


def test_a_refused_token_is_replaced_once_and_then_the_access_is_refused(redis_url):
    issuer = Issuer()

    async def act(processes):
        one, other = processes
        first, same = await one.token(), await other.token()
        assert await one.refused(first)
        assert await other.refused(same)
        second = await one.token()
        assert second == await other.token()
        assert second.is_unproven
        assert not await one.refused(second)
        third = await one.token()
        await one.accepted(third)
        assert await one.refused(await one.token())
        return first, second, third

    found = with_processes(redis_url, 2, act, issuer)

    assert [token.text for token in found] == ["token-1", "token-2", "token-3"]
    assert issuer.issued == 4


def test_what_the_endpoint_answers_is_what_all_hear_and_a_good_token_outlives_it(redis_url):
    issuer = Issuer(seconds=4.0)
    no = AccessRefused("authorizations.crm.token_url answers 401 (invalid_client)")

    async def act(processes):
        one, other = processes
        issuer.answer = no
        assert await one.token() == no
        assert await other.token() == no
        issuer.answer = None
        await one.token()
        issuer.answer = Failed("down", possibly_applied=False)
        await asyncio.sleep(3.2)
        return await other.token(), await one.token()

    found = with_processes(redis_url, 2, act, issuer)

    assert {token.text for token in found} == {"token-1"}


def test_an_empty_token_that_was_kept_is_replaced(redis_url):
    granted = [Granted("", 3_600.0), Granted("token", 3_600.0)]

    async def issue(_):
        return granted.pop(0)

    async def act(processes):
        one, other = processes
        return await one.token(), await other.token()

    found = with_processes(redis_url, 2, act, issue)

    assert {token.text for token in found} == {"token"}


def test_a_process_that_dies_while_it_asks_holds_the_others_up_for_its_turn_only(redis_url):
    issuer = Issuer(slow=60)

    async def act(processes):
        one, other = processes
        asking = asyncio.ensure_future(one._taken("0"))
        await asyncio.sleep(0.1)
        issuer.slow = 0
        one._call = lambda *_: asyncio.sleep(0)
        asking.cancel()
        found = await other.token()
        return found if isinstance(found, AccessToken) else await other.token()

    assert with_processes(redis_url, 2, act, issuer, turn_seconds=0.4).text == "token-1"


def test_redis_holds_nothing_that_can_be_read(redis_url):
    async def act(processes):
        return await processes[0].token()

    with_processes(redis_url, 1, act, Issuer())

    with connect(redis_url) as client:
        [key] = client.keys("{token:*")
        stored = b" ".join(part for pair in client.hgetall(key).items() for part in pair)
        assert client.pttl(key) > 600_000
    assert b"token-1" not in stored
    assert b"a-secret-of-nobody" not in stored + key


def test_a_request_carries_the_token_and_a_401_is_sent_again_by_the_drain(redis_url):
    statuses = [200, 401, 200, 401, 401]

    async def respond(_request):
        return Answer(statuses.pop(0), b"{}")

    async def act(processes):
        sender = FakeSender(respond)
        authorized = AuthorizedSender(sender, {"crm": processes[0]})
        answers = [await authorized.send(REQUEST, 5.0) for _ in range(5)]
        return [request.headers["Authorization"] for request in sender.sent], answers

    carried, answers = with_processes(redis_url, 1, act, Issuer())

    replaced = partial(NoToken, "token", possibly_applied=False)
    assert carried == [f"Bearer token-{n}" for n in (1, 1, 2, 2, 3)]
    assert answers == [
        Answer(200, b"{}"),
        replaced(means=TokenReplaced()),
        Answer(200, b"{}"),
        replaced(means=TokenReplaced()),
        Answer(401, b"{}"),
    ]
