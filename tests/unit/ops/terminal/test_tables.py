"""How tables are fitted to a screen: what is shown, what goes below, and that nothing is cut."""

from hypothesis import given
from hypothesis import strategies as st

from segrelay.ops.terminal.tables import (
    TableColumn,
    cells_of,
    count_columns,
    laid_out,
    number_columns,
    text_columns,
    wrapped,
)

KINDS = count_columns("accepted", "delivered", "skipped", "dead")
NAMES = st.text("abcdefgh-", min_size=1, max_size=60)
NUMBERS = st.integers(0, 10**9).map(lambda number: f"{number:,}")
TEXTS = st.lists(st.text("xyz:;é漢", min_size=1, max_size=30), max_size=30).map(" ".join)


def shown(columns, rows, width):
    return [line for block in laid_out(columns, rows, width) for line in block]


def test_counts_that_are_all_zero_are_left_out_of_a_screen():
    rows = [("a", "5", "5", "0", "0"), ("b", "3", "0", "0", "3")]

    assert shown(("trigger", *KINDS), rows, 80) == [
        "trigger  accepted  delivered  dead",
        "a               5          5     0",
        "b               3          0     3",
    ]


def test_numbers_that_are_all_zero_stay_where_zero_is_an_answer():
    assert shown(("destination", *number_columns("missing")), [("insider", "0")], 80) == [
        "destination  missing",
        "insider            0",
    ]


def test_columns_that_are_empty_are_left_out_of_a_screen():
    assert shown(("name", "id", "every"), [("vip", "-", "15m")], 80) == ["name  every", "vip   15m"]


def test_every_column_is_there_where_no_screen_is():
    rows = [("a", "0", "0", "0", "0"), ("b" * 200, "0", "0", "0", "0")]

    assert [line.split() for line in shown(("trigger", *KINDS), rows, None)] == [
        ["trigger", "accepted", "delivered", "skipped", "dead"],
        *map(list, rows),
    ]


def test_a_long_text_goes_below_its_row():
    state = "paused: " + "the template fails for every event since it was changed " * 2

    lines = shown(("trigger", *text_columns("state"), "template"), [("vip", state, "3f2a")], 80)

    assert lines[1] == "vip             3f2a"
    assert lines[2].startswith("    state paused: the template")
    assert lines[3].startswith("      ")


def test_a_column_without_room_goes_below_with_its_title():
    rows = [("a" * 50, "b" * 40, "7")]

    assert shown(("job", "source", *count_columns("dead")), rows, 80) == [
        f"job{' ' * 47}  dead",
        f"{'a' * 50}     7",
        f"    source {'b' * 40}",
    ]


def test_what_fits_is_one_line_a_row_and_wide_characters_take_two_columns():
    assert shown(("audience", *number_columns("n")), [("漢字漢字漢字", "1"), ("vip", "2")], 80) == [
        "audience      n",
        "漢字漢字漢字  1",
        "vip           2",
    ]


def test_a_word_that_is_longer_than_the_screen_stays_whole():
    assert list(wrapped("id " + "x" * 50 + " end", 20)) == ["id", "  " + "x" * 50, "  end"]


@given(
    st.integers(40, 200),
    st.lists(st.tuples(NAMES, TEXTS, NUMBERS, NAMES, TEXTS), min_size=1, max_size=5),
)
def test_no_cell_is_cut_and_only_what_can_not_be_broken_is_wider_than_the_screen(width, rows):
    columns = (
        "name",
        *text_columns("state"),
        TableColumn("n", "count"),
        "id",
        *text_columns("why"),
    )

    header, *blocks = laid_out(columns, rows, width)

    assert len(blocks) == len(rows)
    for row, block in zip(rows, blocks, strict=True):
        text = " ".join(" ".join(block).split())
        for cell in row:
            assert cell in {"0", "", "-"} or " ".join(cell.split()) in text
    for line in [*header, *(line for block in blocks for line in block)]:
        longest = max(map(cells_of, line.split()), default=0)
        assert cells_of(line) <= max(width, longest + len("    state   "))
