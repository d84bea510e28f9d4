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
def console(relay):
    """A browser of Ann, whom a proxy has signed in."""
    rights = Rights.of(ConsoleSettings.model_validate({"proxy": PROXY}))
    commands = StartedCommands()
    look = Look(relay.client, relay.settings, commands.changed_at)
    try:
        shared = Console(look, rights.section, rights, menu=MENU, started=commands)
        with TestClient(
            Guard(build_app(shared, PAGES), rights),
            base_url="http://127.0.0.1:8600",
            headers=OWN,
            client=("10.0.0.7", 1),
            follow_redirects=False,
        ) as browser:
            yield browser
    finally:
        commands.end()
        look.end()
