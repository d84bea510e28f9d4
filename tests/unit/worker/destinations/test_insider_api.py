"""The rest of what Insider's API decides: bodies, identifiers, names."""

from __future__ import annotations

import orjson
import pytest

from segrelay.worker.destinations.insider.api import InsiderApi, identifies

API = InsiderApi()


def test_users_are_combined_with_their_root_options() -> None:
    users = [b'{"insider_id":"a"}', b'{"insider_id":"b"}']

    assert orjson.loads(API.assemble(users, {})) == {
        "users": [{"insider_id": "a"}, {"insider_id": "b"}]
    }
    assert orjson.loads(API.assemble(users[:1], {"skip_hook": True})) == {
        "users": [{"insider_id": "a"}],
        "skip_hook": True,
    }


def test_identifiers_are_all_that_would_make_two_users_one_person() -> None:
    user = {
        "insider_id": "i1",
        "identifiers": {"email": "ann@example.com", "custom": {"lytics_id": "7"}},
        "attributes": {"email": "other@example.com"},
    }

    assert set(API.identifiers(user)) == {
        "insider_id:i1",
        "email:ann@example.com",
        "custom.lytics_id:7",
    }


@pytest.mark.parametrize(
    ("body", "value", "is_sent"),
    [
        ({"users": [{"identifiers": {"email": "Ann@Example.com"}}]}, "ann@example.com", True),
        ({"users": [{"identifiers": {"custom": {"id": 77}}}]}, "77", True),
        ({"users": [{"attributes": {"email": "ann@example.com"}}]}, "ann@example.com", False),
        ({"users": "x"}, "x", False),
        ([], "x", False),
    ],
)
def test_the_identity_counts_as_sent_only_as_an_identifier(
    body: object, value: str, is_sent: bool
) -> None:
    assert identifies(body, value) is is_sent
