"""A template that kills the process which renders it does not kill the check."""

from __future__ import annotations

from pathlib import Path

from worker.contract.settings import load_settings
from worker.trigger_check import check_triggers

CONFIGURATION = """
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
rate = "100/min"
[triggers.deadly]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "deadly.jsonnet"
url = "/api/user/v1/upsert"
"""


def test_a_template_that_refers_to_itself_is_an_error_of_its_trigger(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/deadly.jsonnet").write_text("local a = [a]; a")
    (tmp_path / "segrelay.toml").write_text(CONFIGURATION)

    found = check_triggers(load_settings(tmp_path / "segrelay.toml", environ={}))

    assert [(finding.trigger, finding.severity) for finding in found] == [("deadly", "error")]
    assert "kills the process" in found[0].message
