"""How benchmarks are summed up and drawn."""

import os
from inspect import signature

import pytest

from tests.unit.tools.bench.measurement import own_pid
from tools.bench.runs import Runs, Scenario, Variant, summed_up
from tools.bench.scenarios import SCENARIOS


def test_ratios_are_those_within_a_run() -> None:
    found = summed_up({"a": [100.0, 10.0, 50.0], "b": [50.0, 8.0, 25.0]})

    assert found["a"] == {"least": 10.0, "median": 50.0, "most": 100.0, "ratio": 1.0}
    assert found["b"]["ratio"] == 0.5


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_bar_has_its_own_label_and_arguments_that_its_measurement_takes(name: str) -> None:
    scenario = SCENARIOS[name]
    labels = [variant.label for variant in scenario.variants]

    assert len(set(labels)) == len(labels)
    for variant in scenario.variants:
        signature(scenario.measure).bind(**scenario.arguments_of(variant, 7))


def test_a_number_of_events_replaces_the_scenarios_own_but_not_the_variants() -> None:
    drained = SCENARIOS["end-to-end"]
    fixed = Variant("fixed", "seconds", {"events": 100_000})

    assert drained.arguments_of(drained.variants[0], 7)["events"] == 7
    assert drained.arguments_of(drained.variants[0], None)["events"] == 50_000
    assert drained.arguments_of(fixed, 7)["events"] == 100_000


def test_what_two_bars_have_in_common_is_measured_once_a_run_in_a_process_of_its_own() -> None:
    bars = (Variant("process", "pid"), Variant("same", "pid"), Variant("other", "pid", {"at": 1}))
    lines: list[str] = []
    scenario = Scenario("Processes", "pid", own_pid, bars, events=3)

    found = Runs(2, None, lines.append).measured(scenario)

    pids = [each["pid"] for many in found["documents"].values() for each in many]
    assert len(lines) == len(set(pids)) == 4
    assert os.getpid() not in pids
    assert found["variants"]["process"] == found["variants"]["same"]
