"""Fixtures that the tests of renamed and erased people share."""

import pytest

from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE


@pytest.fixture
def at_insider(sandbox):
    def held():
        found = sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
        return {email: slugs for email, slugs in found.items() if email.endswith("example.com")}

    return held
