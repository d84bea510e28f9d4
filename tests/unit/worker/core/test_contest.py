"""Within a batch only what nothing supersedes goes on."""

from hypothesis import given
from hypothesis import strategies as st

from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import LedgerEvent, contest, is_superseded
from tests.ledger_keys import ledger_event

events = st.builds(
    ledger_event, st.integers(1, 4), st.sampled_from(list(Direction)), st.sampled_from([1, 2, 3])
)


def supersedes(newer: LedgerEvent, older: LedgerEvent) -> bool:
    header = newer.header
    return is_superseded(older, header.time_us, header.direction, newer.key[1])


entrants = st.lists(st.tuples(st.sampled_from(["ada", "bob"]), events), max_size=12)


@given(entrants=entrants)
def test_who_goes_on_is_beaten_by_no_other_who_does_and_who_does_not_by_one(
    entrants: list[object],
) -> None:
    numbered = [(about, event, n) for n, (about, event) in enumerate(entrants)]

    result = contest(numbered)

    going = [one for one, _ in result]
    for one in going:
        for other in going:
            same = numbered[one][0] == numbered[other][0]
            assert not (same and supersedes(numbered[one][1], numbered[other][1]))
    everybody = [each for winner, older in result for each in (winner, *older)]
    assert sorted(everybody) == list(range(len(entrants)))
    for winner, older in result:
        for each in older:
            assert supersedes(numbered[winner][1], numbered[each][1])
