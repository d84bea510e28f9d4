"""The fields of `counts`, and the words that stand in them."""

import pytest

from segrelay.worker.contract.keys import outcome_field, without_lane
from segrelay.worker.contract.words import Death, Skip


@pytest.mark.parametrize(
    ("stream", "reason", "field"),
    [
        ("live|vip-enter", "", "skipped|vip-enter"),
        ("live|vip-enter", Skip.EMPTY, "skipped|vip-enter|empty"),
        ("backfill|vip-enter", Skip.EMPTY, "backfill.skipped|vip-enter|empty"),
        ("job.may|vip-enter", "", "backfill.skipped|vip-enter"),
    ],
)
def test_a_field_of_outcomes_names_its_lane_and_each_job_is_backfill(stream, reason, field):
    assert outcome_field("skipped", stream, reason) == field


def test_a_field_is_told_apart_from_its_lane():
    assert without_lane("backfill.dead|vip|refused") == ("backfill", "dead|vip|refused")
    assert without_lane("dead|backfill.|refused") == ("live", "dead|backfill.|refused")


def test_no_reason_of_skipping_is_one_of_death():
    """A settlement groups deliveries by their reason alone."""
    assert not {one.value for one in Skip} & {one.value for one in Death}
