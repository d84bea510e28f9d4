"""What holds in the end of what happened to invented people."""

from segrelay.sandbox.people import (
    Happening,
    truth,
)


def test_at_equal_times_the_exit_holds_in_any_order():
    enter = Happening("ann@example.com", "vip", is_exit=False, time_us=1)
    leave = Happening("ann@example.com", "vip", is_exit=True, time_us=1)

    assert truth([enter, leave]) == truth([leave, enter]) == {}
