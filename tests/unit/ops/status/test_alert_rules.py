"""Prometheus has an alert for each problem that health can name."""

import re
from pathlib import Path

from segrelay.ops.status import health
from tests.unit.ops.status.test_judgement import CASES

RULES = Path(__file__).parents[4] / "ops/prometheus/rules.yml"


def test_each_problem_has_an_alert():
    named = re.findall(r'segrelay_problems\{name="(\w+)"', RULES.read_text())

    yielded = re.findall(r'HealthProblem\(\s*"(\w+)"', Path(health.__file__).read_text())
    assert sorted(named) == sorted({name for _, name, _ in CASES} | {*yielded, health.UNREACHABLE})
