"""A deferred module is loaded when something of it is used first."""

import sys

import pytest

from segrelay.worker.contract.own_processes import deferred


def test_a_deferred_module_is_loaded_by_the_first_use(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    colours = deferred("colorsys")

    assert "colorsys" not in sys.modules
    assert colours.rgb_to_hsv(0, 0, 1) == (2 / 3, 1, 1)
    assert "colorsys" in sys.modules


def test_what_a_module_lacks_is_missing_in_its_stand_in() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = deferred("colorsys").no_such_thing
