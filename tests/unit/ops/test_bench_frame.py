"""How benchmarks are summed up and drawn."""

from xml.etree import ElementTree as ET

import pytest

from ops.bench.__main__ import summed_up
from ops.bench.frame.plot import bars
from ops.bench.frame.scenarios import SCENARIOS

SVG = "{http://www.w3.org/2000/svg}"


def test_ratios_are_those_within_a_run() -> None:
    found = summed_up({"a": [100.0, 10.0, 50.0], "b": [50.0, 8.0, 25.0]})

    assert found["a"] == {"least": 10.0, "median": 50.0, "most": 100.0, "ratio": 1.0}
    assert found["b"]["ratio"] == 0.5


def test_a_plot_has_a_bar_for_each_row_whose_length_is_its_median() -> None:
    drawn = bars("Size & speed", "events/s", {"1 KB": (90, 100, 200), "<8 KB>": (40, 50, 60)})

    root = ET.fromstring(drawn)  # noqa: S314 - our own text
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")]
    told = "".join(text.text or "" for text in root.iter(f"{SVG}text"))
    assert widths == [210.0, 105.0]
    assert "Size & speed (events/s)" in told
    assert "<8 KB>" in told


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_says_what_it_runs_and_each_bar_has_its_own_label(name: str) -> None:
    scenario = SCENARIOS[name]

    labels = [variant.label for variant in scenario.variants]
    assert len(set(labels)) == len(labels)
    assert all(variant.arguments.format(events=7) is not None for variant in scenario.variants)
