"""The console without a socket: its pages over a small segrelay."""

import pytest
from starlette.testclient import TestClient

from segrelay.ops.console.acts import StartedCommands
from segrelay.ops.console.app import Console, Guard, build_app
from segrelay.ops.console.command import MENU, PAGES
from segrelay.ops.console.look import Look
from segrelay.ops.console.rights import Rights
from segrelay.worker.contract.settings import ConsoleSettings

PROXY = {"addresses": ["10.0.0.7"], "roles": ["viewer", "operator", "revealer"]}
OWN = {
    "Origin": "http://127.0.0.1:8600",
    "Sec-Fetch-Site": "same-origin",
    "X-Forwarded-User": "ann",
}


@pytest.fixture
def served(relay):
    """Return the console's application of a table [console]."""
    commands = StartedCommands()
    look = Look(relay.client, relay.settings, commands.changed_at)

    def made(**section):
        rights = Rights(ConsoleSettings.model_validate(section))
        shared = Console(look, rights.section, rights, menu=MENU, started=commands)
        return Guard(build_app(shared, PAGES), rights)

    yield made
    commands.end()
    look.end()


@pytest.fixture
def console(served):
    """A browser of Ann, whom a proxy has signed in."""
    with TestClient(
        served(proxy=PROXY),
        base_url="http://127.0.0.1:8600",
        headers=OWN,
        client=("10.0.0.7", 1),
        follow_redirects=False,
    ) as browser:
        yield browser
