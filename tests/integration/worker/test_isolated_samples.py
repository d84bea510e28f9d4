"""A template that kills the process which renders it does not kill the check."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from segrelay.worker.checks.triggers import check_triggers
from tests.configuration import insider, settings_in, trigger


def test_a_template_that_recurs_without_end_is_an_error_of_its_trigger(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/deadly.jsonnet").write_text("local f(x) = f(x + 1) tailstrict; f(0)")
    deadly = trigger("deadly", template="deadly.jsonnet", engine="jsonnet")
    settings = settings_in(tmp_path, insider(), deadly)

    found = check_triggers(settings, datetime.now(UTC))

    assert [(finding.trigger, finding.severity) for finding in found] == [("deadly", "error")]
    assert "kills the process" in found[0].message
