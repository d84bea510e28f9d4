"""Bodies that remove, and lists of audiences in bodies that enter: what is sent of them."""

from __future__ import annotations

from typing import Any

from segrelay.worker.contract.words import Direction, Skip
from tests.unit.worker.destinations.shaping import (
    ANN,
    DELETE,
    HEADER,
    UPSERT,
    refused,
    shaped,
)


def test_a_delete_holds_what_to_remove_and_nothing_else() -> None:
    user = {
        **ANN,
        "whole": ["city", "shoe"],
        "partial": {"name": ["Ann"], "shoe": [1]},
        "custom": {"whole": ["status", ""], "partial": {"list": ["vip", ""], "one": "x", "no": []}},
    }

    result = shaped(user, (DELETE[0]._replace(skip_hook=True), DELETE[1]))

    assert result.users[0] == {
        **ANN,
        "whole": ["city"],
        "partial": {"name": ["Ann"]},
        "custom": {"whole": ["status"], "partial": {"list": ["vip"], "one": ["x"]}},
    }
    assert result.root == {}
    assert result.dropped == ("whole", "partial.shoe")


def memberships(value: Any, **user: Any) -> dict[str, Any]:
    return {**ANN, "attributes": {"custom": {"lytics_computed_attr": value}}, **user}


def test_an_empty_list_that_overwrites_is_a_statement_and_is_kept() -> None:
    overwriting = memberships([], not_append=True)

    exit_ = (HEADER._replace(direction=Direction.EXIT), UPSERT[1])

    assert shaped(overwriting, exit_).users[0] == overwriting
    assert refused({"users": [memberships([])]}).reason is Skip.EMPTY
