"""Deletes in the sandbox: what they take, and what they answer."""

from __future__ import annotations

import pytest

from segrelay.sandbox.insider.rules import ATTRIBUTE_DELETE
from tests.unit.sandbox.account import account, errors, person, post


def test_a_whole_delete_takes_the_attribute():
    insider = account()
    post(insider, person(attributes={"name": "Ann", "custom": {"status": "new"}}))
    identifiers = {"email": "ann@example.com"}
    user = {"identifiers": identifiers, "whole": ["name"], "custom": {"whole": ["status"]}}

    post(insider, user, path=ATTRIBUTE_DELETE)

    assert insider.profiles.find(("email:ann@example.com",)).attributes() == ({}, {})


@pytest.mark.parametrize(
    ("parts", "location"),
    [
        ({}, "required(whole,partial,custom)"),
        ({"attributes": {"custom": {"partial": {"x": ["y"]}}}}, "attributes.forbidden"),
        ({"whole": ["name"], "events": []}, "events.forbidden"),
        ({"whole": "name"}, "whole.type(array)"),
        ({"custom": {"partial": {"x": "y"}}}, "custom.partial.type(object)"),
    ],
)
def test_a_delete_takes_only_what_it_knows(parts, location):
    user = {"identifiers": {"email": "ann@example.com"}, **parts}

    answer = post(account(), user, path=ATTRIBUTE_DELETE)

    assert f"users.0.{location}" in errors(answer)
