"""Who may read the metrics, over ASGI, without a network."""

import asyncio

import httpx
import pytest

from segrelay.ops.metrics.page import build_metrics_app

TOKEN = "a-token-of-nobody"


def ask(app: object, **headers: str) -> httpx.Response:
    async def play() -> httpx.Response:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            return await client.get("/metrics", headers=headers)

    return asyncio.run(play())


APP = build_metrics_app(lambda: b"segrelay_up 1.0\n", TOKEN)
SCHEMES = ("Bearer", "bearer", "BEARER")


def test_with_the_token_the_metrics_are_read() -> None:
    ask_with = {scheme: ask(APP, authorization=f"{scheme} {TOKEN}") for scheme in SCHEMES}
    answer = ask_with["Bearer"]

    assert {each.status_code for each in ask_with.values()} == {200}
    assert (answer.status_code, answer.text) == (200, "segrelay_up 1.0\n")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("given", [None, "Bearer other", "Basic a-token-of-nobody", "Bearer "])
def test_without_the_token_they_are_refused(given: str | None) -> None:
    answer = ask(APP, **({"authorization": given} if given else {}))

    assert answer.status_code == 401
    assert "segrelay_up" not in answer.text
    assert TOKEN not in answer.text


def test_without_a_token_segrelay_metrics_asks_for_none() -> None:
    assert ask(build_metrics_app(lambda: b"segrelay_up 1.0\n", "")).status_code == 200
