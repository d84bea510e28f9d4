"""The attributes and events of templates that Insider would drop, by its panels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ops.insider.live_check import LiveFinding, check_panel
from ops.insider.reader import InsiderReader
from ops.templates.checking.findings import placed
from ops.templates.workspace import Workspace
from worker.checks.finding import Finding
from worker.contract.settings import Trigger
from worker.errors import SegrelayError, TemplateBroken, UsageWrong
from worker.jsonnet.files import TemplateFolder

_INSIDER: Final = "insider"


@dataclass(slots=True)
class LiveCheck:
    """The findings of the panels.

    Args:
        unanswered: The reasons why panels could not be asked, by destination.
        unused: Templates that no trigger of Insider uses: there is no panel to ask about them.
    """

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def check_live(workspace: Workspace, names: Iterable[str]) -> LiveCheck:
    """Ask the panel of each destination of Insider about the templates of its triggers."""
    settings = workspace.settings
    if settings is None:
        raise UsageWrong("--live needs the configuration, which --templates leaves out.")
    result = LiveCheck()
    triggers: dict[str, list[Trigger]] = {}
    for name in names:
        used = [
            trigger
            for trigger in workspace.triggers(name)
            if settings.destinations[trigger.destination].api == _INSIDER
        ]
        if not used:
            result.unused.append(name)
        for trigger in used:
            triggers.setdefault(trigger.destination, []).append(trigger)
    for destination, asking in triggers.items():
        try:
            with InsiderReader(settings, settings.destinations[destination]) as reader:
                found = list(check_panel(reader, settings, asking))
        except SegrelayError as error:
            result.unanswered[destination] = error.message
            continue
        for one in found:
            template = settings.triggers[one.trigger].template
            result.findings.setdefault(template, []).append(_finding(one, template, workspace))
    for told in result.findings.values():
        told.sort(key=lambda one: (one.file, one.line, one.column))
    return result


def _finding(one: LiveFinding, template: str, workspace: Workspace) -> Finding:
    finding = Finding(one.severity, f"{one.message}.", one.trigger, template)
    try:
        bundle = TemplateFolder(workspace.folder).bundle(template)
    except TemplateBroken:
        return finding
    return placed(finding, template, bundle, names=[one.name] if one.name else [])
