"""What something newer has made untrue is taken back right before sending."""

from __future__ import annotations

from typing import Any

import pytest

from segrelay.worker.contract.words import Direction, Skip
from segrelay.worker.core.ledger import Knowledge
from segrelay.worker.destinations.api import NotSendable, Shaped
from segrelay.worker.destinations.insider.api import InsiderApi
from segrelay.worker.destinations.insider.memberships import tells_data
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
    ("slugs", "event", "knowledge", "right"),
    [
        (["vip", "new"], ENTER, NOTHING, ["vip", "new"]),
        (["new"], ENTER, NOTHING, ["new", "vip"]),
        (["vip", "new"], ENTER, knows(outside="new"), ["vip"]),
        (["vip"], ENTER, knows(inside="churn best"), ["vip", "best", "churn"]),
        (["vip", "new"], EXIT, NOTHING, ["new"]),
        (["vip"], EXIT, NOTHING, []),
        (["vip"], EXIT, knows(inside="new"), ["new"]),
        ([], EXIT, NOTHING, []),
        (["vip", "new"], CHANGE, knows(outside="vip"), ["new"]),
        ([{"slug": "vip"}, "new"], EXIT, knows(outside="new"), [{"slug": "vip"}]),
    ],
)
def test_a_list_that_would_be_overwritten_is_corrected(
    slugs: Any, event: Any, knowledge: Knowledge, right: Any
) -> None:
    assert slugs_of(API.correct(overwriting(slugs), *event, knowledge)) == right


@pytest.mark.parametrize(
    ("slugs", "event", "knowledge", "right"),
    [
        (["vip"], ENTER, knows(inside="new"), ["vip"]),
        (["vip", "new"], ENTER, knows(outside="new"), ["vip"]),
        (["new"], ENTER, NOTHING, ["new"]),
        (["vip"], EXIT, NOTHING, None),
    ],
)
def test_an_appended_list_never_adds_what_something_newer_exited(
    slugs: Any, event: Any, knowledge: Knowledge, right: Any
) -> None:
    assert slugs_of(API.correct(user_with(slugs), *event, knowledge)) == right


def test_append_false_overwrites_as_well() -> None:
    shaped = user_with(["new"], append=False)

    assert slugs_of(API.correct(shaped, *ENTER, NOTHING)) == ["new", "vip"]


@pytest.mark.parametrize("switch", [{}, {"not_append": True}])
def test_a_list_that_the_whole_body_overwrites_is_corrected_too(switch: dict[str, Any]) -> None:
    shaped = user_with(["vip", "new"], **switch)._replace(root={"append": bool(switch)})

    assert slugs_of(API.correct(shaped, *EXIT, NOTHING)) == ["new"]


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


def test_what_is_true_stays_the_very_same() -> None:
    shaped = overwriting(["vip"])

    result = API.correct(shaped, *ENTER, NOTHING)

    assert isinstance(result, Shaped)
    assert result == shaped
    assert result.users[0] is shaped.users[0]


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


def test_stale_opt_ins_are_left_out_alone() -> None:
    attributes = {"name": "Ann", "email_optin": True, "gdpr_optin": True}
    shaped = Shaped(({**ANN, "attributes": attributes},), {})

    result = API.correct(shaped, *ENTER, Knowledge(stale_opt_ins=True))

    assert isinstance(result, Shaped)
    assert result.users[0]["attributes"] == {"name": "Ann"}
    assert result.dropped == ("stale_opt_ins",)


@pytest.mark.parametrize(
    ("attributes", "knowledge"),
    [
        ({"name": "Ann"}, Knowledge(stale=True)),
        ({"email_optin": True}, Knowledge(stale_opt_ins=True)),
    ],
)
def test_where_nothing_true_is_left_the_delivery_is_skipped(
    attributes: Any, knowledge: Knowledge
) -> None:
    result = API.correct(Shaped(({**ANN, "attributes": attributes},), {}), *ENTER, knowledge)

    assert isinstance(result, NotSendable)
    assert result.reason is Skip.EMPTY


def removing(*slugs: str, **more: Any) -> Shaped:
    user = {**ANN, "custom": {"partial": {"lytics_computed_attr": list(slugs)}}, **more}
    return Shaped((user,), {})


def test_an_exit_is_removed_as_rendered() -> None:
    shaped = removing("vip")

    result = API.correct(shaped, *REMOVE, Knowledge(stale=True, stale_opt_ins=True))

    assert result == shaped


def test_what_something_newer_entered_is_not_removed() -> None:
    result = API.correct(removing("vip", "new"), *REMOVE, knows(inside="new"))

    assert result == removing("vip")


def test_a_removal_of_which_nothing_is_left_is_skipped_unless_it_removes_more() -> None:
    empty = API.correct(removing("new"), *REMOVE, knows(inside="new"))
    more = API.correct(removing("new", whole=["city"]), *REMOVE, knows(inside="new"))

    assert isinstance(empty, NotSendable)
    assert more == Shaped(({**ANN, "whole": ["city"]},), {})


def flagged(**custom: Any) -> Shaped:
    return Shaped(({**ANN, "attributes": {"name": "Ann", "custom": custom}},), {})


@pytest.mark.parametrize("value", [True, False])
def test_the_attribute_of_the_events_own_audience_is_never_stale(value: bool) -> None:
    shaped = flagged(lytics_in_vip=value, lytics_in_new=value, status="active")

    result = API.correct(shaped, *ENTER, Knowledge(stale=True))

    assert isinstance(result, Shaped)
    assert result.users[0]["attributes"] == {"custom": {"lytics_in_vip": value}}
    assert result.dropped == ("stale_attributes",)


def test_what_is_called_like_a_flag_and_is_none_is_data() -> None:
    result = API.correct(flagged(lytics_in_vip="yes"), *ENTER, Knowledge(stale=True))

    assert isinstance(result, NotSendable)


def test_how_flags_begin_is_the_triggers_setting() -> None:
    event = (HEADER._replace(audience="VIP EU"), RULES._replace(audience_flag_prefix="seg_"))

    shaped = flagged(seg_vip_eu=True, lytics_in_vip=True)
    result = API.correct(shaped, *event, Knowledge(stale=True))

    assert isinstance(result, Shaped)
    assert result.users[0]["attributes"] == {"custom": {"seg_vip_eu": True}}


@pytest.mark.parametrize(
    ("attributes", "tells"),
    [
        ({"custom": {"lytics_in_vip": True}}, False),
        ({"custom": {"lytics_computed_attr": ["vip"]}}, False),
        ({"custom": {"lytics_computed_attr": ["vip"], "lytics_in_vip": True}}, False),
        ({"custom": {"lytics_in_new": True}}, True),
        ({"custom": {"lytics_in_vip": True, "status": "x"}}, True),
        ({"name": "Ann", "custom": {"lytics_in_vip": True}}, True),
        ({"email_optin": True}, True),
        ({}, False),
    ],
)
def test_memberships_are_no_data_of_the_person(attributes: dict[str, Any], tells: bool) -> None:
    """Else the flag of an exit would make an older entrance's opt-ins stale."""
    assert tells_data({**ANN, "attributes": attributes}, *ENTER) is tells
