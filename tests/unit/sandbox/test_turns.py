"""The sandbox's application: what a small request waits for."""

import asyncio

import httpx

from segrelay.sandbox.app import Sandbox
from segrelay.sandbox.insider.rules import UPSERT
from segrelay.sandbox.settings import SandboxSettings

HEADERS = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "demo"}


def users(name: str, count: int) -> dict[str, object]:
    return {
        "users": [
            {"identifiers": {"email": f"{name}{n}@example.com"}, "attributes": {"city": "Portland"}}
            for n in range(count)
        ]
    }


def test_a_small_write_waits_for_no_large_one_and_large_ones_take_turns() -> None:
    ended: list[str] = []

    async def post(client: httpx.AsyncClient, name: str, count: int) -> None:
        answer = await client.post(UPSERT, json=users(name, count))
        assert answer.status_code == 200
        assert answer.json()["data"]["successful"] == {"count": count}
        ended.append(name)

    async def post_all() -> None:
        transport = httpx.ASGITransport(app=Sandbox(SandboxSettings()))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://sandbox", headers=HEADERS
        ) as client:
            await asyncio.gather(
                post(client, "first", 1_000), post(client, "second", 1_000), post(client, "live", 1)
            )

    asyncio.run(post_all())

    assert ended == ["live", "first", "second"]
