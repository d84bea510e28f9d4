"""Tokens of OAuth2: one for each process, renewed before its end, replaced once."""

import asyncio
from functools import partial

import pytest

from segrelay.worker.adapters.sender import AuthorizedSender, Granted, ProcessToken
from segrelay.worker.core.verdicts import AccessRefused, Failed, TokenReplaced
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest
from tests.conformance.drain.fake_sender import FakeSender

REQUEST = OutgoingRequest(
    "https://crm.example.com/people",
    {"Authorization": "Bearer {token}"},
    {"key": "{token}"},
    b"{}",
    "http",
    authorization="crm",
)
DOWN = Failed("down", possibly_applied=False)
REFUSED = AccessRefused("authorizations.crm.token_url answers 401 (invalid_client)")


class Issuer:
    """Issues `token-1`, `token-2`, … by a clock that a test moves."""

    def __init__(self, seconds=600.0):
        self.issued = self.asked = 0
        self.seconds = seconds
        self.answer = None
        self.now = 100.0

    async def __call__(self):
        self.asked += 1
        await asyncio.sleep(0)
        if self.answer is not None:
            return self.answer
        self.issued += 1
        return Granted(f"token-{self.issued}", self.seconds)

    def token(self):
        return ProcessToken(self, lambda: self.now)


async def test_a_token_is_renewed_before_its_end_and_used_to_its_end_where_there_is_no_other():
    issuer = Issuer(seconds=600.0)
    found = []

    process = issuer.token()
    for issuer.now, issuer.answer in (
        (100, None), (639, DOWN), (641, DOWN), (643, None), (1_300, DOWN), (1_302, None),
    ):  # fmt: skip
        found.append(await process.token())

    assert found == ["token-1", "token-1", "token-1", "token-2", DOWN, "token-3"]


@pytest.mark.parametrize(
    ("refusal", "heard_by_all", "asked"), [(None, "token-1", 1), (REFUSED, REFUSED, 2)]
)
async def test_requests_that_go_at_once_ask_once_and_where_there_is_no_token_once_a_second(
    refusal, heard_by_all, asked
):
    issuer = Issuer()
    issuer.answer = refusal

    process = issuer.token()
    heard = await asyncio.gather(*(process.token() for _ in range(9)))
    assert issuer.asked == 1
    issuer.now += 1.5
    all_heard = [*heard, await process.token()]

    assert set(all_heard) == {heard_by_all}
    assert issuer.asked == asked


async def test_a_refused_token_is_replaced_once_and_then_the_access_is_refused():
    issuer = Issuer()

    process = issuer.token()
    first = await process.token()
    assert process.refused(first)
    assert process.refused(first)  # by another request that carried it
    second = await process.token()
    assert not process.refused(second)
    third = await process.token()  # somebody resumed the destination
    assert not process.refused(third)
    fourth = await process.token()
    process.accepted(fourth)
    assert process.refused(fourth)

    assert issuer.issued == 4


async def test_a_request_carries_the_token_and_a_401_is_sent_again_by_the_drain():
    statuses = [200, 401, 200, 401, 401]

    async def respond(_request):
        return Answer(statuses.pop(0), b"{}")

    sender = FakeSender(respond)
    authorized = AuthorizedSender(sender, {"crm": Issuer().token()})
    answers = [await authorized.send(REQUEST, 5.0) for _ in range(5)]
    carried = [request.headers["Authorization"] for request in sender.sent]

    replaced = partial(NoAnswer, "token", possibly_applied=False)
    assert carried == [f"Bearer token-{n}" for n in (1, 1, 2, 2, 3)]
    assert answers == [
        Answer(200, b"{}"),
        replaced(means=TokenReplaced()),
        Answer(200, b"{}"),
        replaced(means=TokenReplaced()),
        Answer(401, b"{}"),
    ]
