"""The console without a socket: its pages over a small segrelay."""

import pytest
from starlette.testclient import TestClient

from segrelay.ops.console.acts import StartedCommands
from segrelay.ops.console.app import Console, Guard, build_app
from segrelay.ops.console.command import MENU, PAGES
from segrelay.ops.console.look import Look
from segrelay.ops.console.rights import Rights
from segrelay.worker.contract.settings.sections import ConsoleSettings
from tests.waiting import until

PROXY = {"addresses": ["10.0.0.7"], "roles": ["viewer", "operator", "revealer"]}
OWN = {
    "Origin": "http://127.0.0.1:8600",
    "Sec-Fetch-Site": "same-origin",
    "X-Forwarded-User": "ann",
}


@pytest.fixture
def served(relay):
    """Return the application of one more console, by its table [console]."""
    consoles = []

    def made(client=relay.client, **section):
        consoles.append(StartedCommands())
        look = Look(client, relay.settings, consoles[-1].changed_at)
        rights = Rights(ConsoleSettings.model_validate(section))
        shared = Console(look, rights, MENU, consoles[-1])
        return Guard(build_app(shared, PAGES), rights)

    yield made
    for commands in consoles:
        commands.end()


def browser_at(application, **headers):
    """Return a browser behind the proxy, which says who it is."""
    return TestClient(
        application,
        base_url=OWN["Origin"],
        headers=OWN | headers,
        client=("10.0.0.7", 1),
        follow_redirects=False,
    )


@pytest.fixture
def console(served):
    """A browser of Ann, whom a proxy has signed in."""
    with browser_at(served(proxy=PROXY)) as browser:
        yield browser


def ended(browser, address):
    """Return the page of a command once it has ended."""
    return until(lambda: "data-over" in (page := browser.get(address).text) and page, 60)
