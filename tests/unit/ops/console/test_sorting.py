from operator import itemgetter

import pytest

from segrelay.ops.console.app import Asked, Sorting
from segrelay.ops.console.rights import Person

COLUMNS = {"name": itemgetter(0), "count": itemgetter(1)}
ROWS = [("b", 2), ("a", None), ("c", 1)]


def sorting(text):
    asked = Asked(Person(roles=frozenset()), {}, {"sort": [text]})
    return Sorting.of(asked, COLUMNS, "-count")


@pytest.mark.parametrize(
    ("text", "names", "kept"),
    [
        ("", "bca", ""),
        ("-count", "bca", ""),
        ("name", "abc", "name"),
        ("-name", "cba", "-name"),
        ("count", "cba", "count"),
        ("<", "bca", ""),
    ],
)
def test_a_table_is_sorted_as_the_address_says_which_omits_the_default(text, names, kept):
    assert "".join(name for name, _ in sorting(text).apply(ROWS, COLUMNS)) == names
    assert sorting(text).text == kept
