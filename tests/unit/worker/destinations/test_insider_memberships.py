"""What something newer has made untrue is taken back right before sending."""

from __future__ import annotations

from typing import Any

import pytest

from segrelay.worker.contract.words import Direction, Skip
from segrelay.worker.core.ledger import Knowledge
from segrelay.worker.destinations.api import NotSendable, Shaped
from segrelay.worker.destinations.insider.api import InsiderApi
from segrelay.worker.destinations.insider.shape import tells_data
from tests.unit.worker.destinations.shaping import HEADER, RULES

API = InsiderApi()
ENTER = (HEADER, RULES)
EXIT = (HEADER._replace(direction=Direction.EXIT), RULES)
CHANGE = (HEADER._replace(direction=Direction.CHANGE), RULES)
REMOVE = (EXIT[0], RULES._replace(url="/api/user/v1/attribute/delete"))
NOTHING = Knowledge()
ANN = {"identifiers": {"email": "ann@example.com"}}
EVENT = {"event_name": "lytics_trigger", "timestamp": "2026-11-01T10:00:00Z"}


def overwriting(slugs: Any, **user: Any) -> Shaped:
    return user_with(slugs, not_append=True, **user)


def user_with(slugs: Any, **user: Any) -> Shaped:
    custom = {"status": "active", "lytics_computed_attr": slugs}
    return Shaped(({**ANN, "attributes": {"name": "Ann", "custom": custom}, **user},), {})


def slugs_of(result: Shaped | NotSendable) -> Any:
    assert isinstance(result, Shaped), result
    return result.users[0]["attributes"]["custom"].get("lytics_computed_attr")


def knows(inside: str = "", outside: str = "") -> Knowledge:
    return Knowledge(inside=frozenset(inside.split()), outside=frozenset(outside.split()))


@pytest.mark.parametrize(
    ("shaped", "event", "knowledge", "right"),
    [
        (overwriting(["vip", "new"]), ENTER, NOTHING, ["vip", "new"]),
        (overwriting(["new"]), ENTER, NOTHING, ["new", "vip"]),
        (overwriting(["vip", "new"]), ENTER, knows(outside="new"), ["vip"]),
        (overwriting(["vip"]), ENTER, knows(inside="churn best"), ["vip", "best", "churn"]),
        (overwriting(["vip", "new"]), EXIT, NOTHING, ["new"]),
        (overwriting(["vip"]), EXIT, NOTHING, []),
        (overwriting(["vip"]), EXIT, knows(inside="new"), ["new"]),
        (overwriting(["vip", "new"]), CHANGE, knows(outside="vip"), ["new"]),
        (overwriting([{"slug": "vip"}, "new"]), EXIT, knows(outside="new"), [{"slug": "vip"}]),
        # `append: false` overwrites as well, and so does a switch of the whole body.
        (user_with(["new"], append=False), ENTER, NOTHING, ["new", "vip"]),
        (user_with(["vip", "new"])._replace(root={"append": False}), EXIT, NOTHING, ["new"]),
        (overwriting(["vip", "new"])._replace(root={"append": True}), EXIT, NOTHING, ["new"]),
        # An appended list never adds what something newer exited.
        (user_with(["vip", "new"]), ENTER, knows(outside="new"), ["vip"]),
        (user_with(["new"]), ENTER, NOTHING, ["new"]),
        (user_with(["vip"]), EXIT, NOTHING, None),
    ],
)
def test_a_list_is_corrected_as_far_as_it_would_be_overwritten(
    shaped: Shaped, event: Any, knowledge: Knowledge, right: Any
) -> None:
    assert slugs_of(API.correct(shaped, *event, knowledge)) == right


def telling(attributes: dict[str, Any], *dropped: str) -> Shaped:
    return Shaped(({**ANN, "attributes": attributes},), {}, dropped)


def flagged(**custom: Any) -> Shaped:
    return telling({"name": "Ann", "custom": custom})


def removing(*slugs: str, **more: Any) -> Shaped:
    user = {**ANN, "custom": {"partial": {"lytics_computed_attr": list(slugs)}}, **more}
    return Shaped((user,), {})


STALE, STALE_OPT_INS = Knowledge(stale=True), Knowledge(stale_opt_ins=True)
BOTH_STALE = Knowledge(stale=True, stale_opt_ins=True)
OPT_INS = {"email_optin": True, "gdpr_optin": True}
OWN_PREFIX = (HEADER._replace(audience="VIP EU"), RULES._replace(audience_flag_prefix="seg_"))


@pytest.mark.parametrize(
    ("shaped", "event", "knowledge", "left"),
    [
        (telling({"name": "Ann", **OPT_INS}), ENTER, STALE_OPT_INS,
         telling({"name": "Ann"}, "stale_opt_ins")),
        (telling({"name": "Ann"}), ENTER, STALE, Skip.EMPTY),
        (telling({"email_optin": True}), ENTER, STALE_OPT_INS, Skip.EMPTY),
        # The attribute of the event's own audience is never stale.
        (flagged(lytics_in_vip=True, lytics_in_new=True, status="active"), ENTER, STALE,
         telling({"custom": {"lytics_in_vip": True}}, "stale_attributes")),
        (flagged(lytics_in_vip=False, lytics_in_new=False, status="active"), ENTER, STALE,
         telling({"custom": {"lytics_in_vip": False}}, "stale_attributes")),
        (flagged(lytics_in_vip="yes"), ENTER, STALE, Skip.EMPTY),
        (flagged(seg_vip_eu=True, lytics_in_vip=True), OWN_PREFIX, STALE,
         telling({"custom": {"seg_vip_eu": True}}, "stale_attributes")),
        (removing("vip"), REMOVE, BOTH_STALE, removing("vip")),
        (removing("vip", "new"), REMOVE, knows(inside="new"), removing("vip")),
        (removing("new"), REMOVE, knows(inside="new"), Skip.EMPTY),
        (removing("new", whole=["city"]), REMOVE, knows(inside="new"),
         Shaped(({**ANN, "whole": ["city"]},), {})),
    ],
)  # fmt: skip
def test_what_is_no_longer_true_is_left_out_and_where_nothing_is_left_it_is_skipped(
    shaped: Shaped, event: Any, knowledge: Knowledge, left: Shaped | Skip
) -> None:
    result = API.correct(shaped, *event, knowledge)

    assert (result.reason if isinstance(result, NotSendable) else result) == left


def test_old_patches_of_objects_are_left_out_where_newer_data_was_sent() -> None:
    patch = {"orders": [{"action": "push"}]}
    shaped = user_with(["vip"], object_attributes=patch)._replace(
        root={"append": True, "object_attributes": patch}
    )

    result = API.correct(shaped, *ENTER, Knowledge(stale=True))

    assert isinstance(result, Shaped)
    assert "object_attributes" not in result.users[0]
    assert result.root == {"append": True}
    assert set(result.dropped) == {"stale_attributes"}


def test_the_body_given_is_not_changed() -> None:
    shaped = overwriting(["new"])

    API.correct(shaped, *ENTER, knows(inside="x", outside="new"))

    assert shaped == overwriting(["new"])


def test_stale_attributes_are_left_out_but_memberships_and_events_stay() -> None:
    shaped = overwriting(["vip", "new"], events=[EVENT])

    result = API.correct(shaped, *ENTER, Knowledge(outside=frozenset({"new"}), stale=True))

    assert isinstance(result, Shaped)
    user = result.users[0]
    assert user["attributes"] == {"custom": {"lytics_computed_attr": ["vip"]}}
    assert user["events"] == [EVENT]
    assert result.dropped == ("stale_attributes",)


@pytest.mark.parametrize(
    ("attributes", "tells"),
    [
        ({"custom": {"lytics_in_vip": True}}, False),
        ({"custom": {"lytics_computed_attr": ["vip"]}}, False),
        ({"custom": {"lytics_in_new": True}}, True),
        ({"name": "Ann", "custom": {"lytics_in_vip": True}}, True),
        ({"email_optin": True}, True),
        ({}, False),
    ],
)
def test_memberships_are_no_data_of_the_person(attributes: dict[str, Any], tells: bool) -> None:
    """Else the flag of an exit would make an older entrance's opt-ins stale."""
    assert tells_data({**ANN, "attributes": attributes}, *ENTER) is tells
