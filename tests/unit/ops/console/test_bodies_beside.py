import pytest

from segrelay.ops.console.people import beside


def lines(marked):
    return [(line.text.strip().rstrip(","), line.differs) for line in marked]


def test_a_masked_value_that_differs_is_marked():
    before, after = beside({"a": "x", "b": "y"}, {"a": "x", "b": "z"}, reveals=False)

    assert lines(before) == [
        ("{", False),
        ('"a": "•••"', False),
        ('"b": "•••"', True),
        ("}", False),
    ]
    assert lines(after) == lines(before)


@pytest.mark.parametrize("other", [{"b": 2, "a": 1}, None])
def test_neither_the_order_of_keys_nor_a_body_that_is_missing_is_a_difference(other):
    before, after = beside({"a": 1, "b": 2}, other, reveals=True)

    assert not any(line.differs for line in (*before, *after))


def test_a_field_that_is_new_is_marked_in_the_second_only():
    before, after = beside({"a": [1]}, {"a": [1], "b": None}, reveals=True)

    assert ('"b": null', True) in lines(after)
    assert ('"a": [', False) in lines(before)


def test_of_a_long_list_no_more_is_compared_than_is_shown():
    before, after = beside(list(range(1000)), list(range(1001)), reveals=False)

    assert len(before) == len(after) < 30
