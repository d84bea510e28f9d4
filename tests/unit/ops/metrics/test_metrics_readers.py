"""Who may read the metrics, over ASGI, without a network."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from segrelay.ops.metrics.page import build_metrics_app, metrics_route
from segrelay.producer.webhook.app import Receiver, build_app
from segrelay.producer.webhook.intake import Intake

TOKEN = "a-token-of-nobody"


class NoShelf:
    """Stores nothing."""

    def draft(self, bodies: object) -> Callable[[], None]:
        raise AssertionError(bodies)


def receiver(*routes: object) -> object:
    nothing = Receiver(
        secrets=[b"a secret"],
        intake=Intake(NoShelf().draft),
        ready=str,
        inspect=lambda _: {},
        count_too_large=lambda: None,
        max_bytes=1_000,
    )
    return build_app(nothing, "/v1/lytics", routes)  # type: ignore[arg-type]


def ask(app: object, **headers: str) -> httpx.Response:
    async def play() -> httpx.Response:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            return await client.get("/metrics", headers=headers)

    return asyncio.run(play())


APPS = {
    "metrics": build_metrics_app(lambda: b"segrelay_up 1.0\n", TOKEN),
    "receiver": receiver(metrics_route(lambda: b"segrelay_up 1.0\n", TOKEN)),
}


SCHEMES = ("Bearer", "bearer", "BEARER")


@pytest.mark.parametrize("name", APPS)
def test_with_the_token_the_metrics_are_read(name: str) -> None:
    ask_with = {scheme: ask(APPS[name], authorization=f"{scheme} {TOKEN}") for scheme in SCHEMES}
    answer = ask_with["Bearer"]

    assert {each.status_code for each in ask_with.values()} == {200}
    assert (answer.status_code, answer.text) == (200, "segrelay_up 1.0\n")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("name", APPS)
@pytest.mark.parametrize("given", [None, "Bearer other", "Basic a-token-of-nobody", "Bearer "])
def test_without_the_token_they_are_refused(name: str, given: str | None) -> None:
    answer = ask(APPS[name], **({"authorization": given} if given else {}))

    assert answer.status_code == 401
    assert "segrelay_up" not in answer.text
    assert TOKEN not in answer.text


def test_the_webhooks_secret_opens_no_metrics() -> None:
    assert ask(APPS["receiver"], **{"x-segrelay-secret": "a secret"}).status_code == 401


def test_without_a_token_the_receiver_has_no_metrics() -> None:
    assert ask(receiver()).status_code == 421


def test_without_a_token_segrelay_metrics_asks_for_none() -> None:
    assert ask(build_metrics_app(lambda: b"segrelay_up 1.0\n", "")).status_code == 200
