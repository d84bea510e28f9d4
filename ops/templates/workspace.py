"""The templates folder of a command, the triggers that use its templates, and shared options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from ops.terminal.options import configured
from worker.checks.samples import profile_for, sample_profile
from worker.checks.templates import Case
from worker.contract.settings import Settings, Trigger, load_settings
from worker.contract.words import Direction
from worker.errors import UsageWrong
from worker.jsonnet.files import SHIPPED_FOLDER

Folder = Annotated[
    Path | None,
    typer.Option(
        "--templates", help="This folder; the configuration is not read then.", metavar="DIR"
    ),
]
TriggerName = Annotated[
    str, typer.Option("--trigger", help="As a delivery of this trigger.", metavar="TRIGGER")
]
Given = Annotated[
    str,
    typer.Option("--settings", help="The trigger's settings, a JSON object.", metavar="JSON"),
]
TemplateArgument = Annotated[str, typer.Argument(help="Below the templates folder.")]


SUFFIX: Final = ".jsonnet"
_PATTERN: Final = f"*{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A templates folder.

    Args:
        settings: None where the folder was named and no configuration is read.
    """

    folder: Path
    settings: Settings | None

    def names(self, wanted: Sequence[str] = ()) -> list[str]:
        """Return the names of templates, all by default."""
        found = [full_name(name) for name in wanted] or names_in(self.folder)
        if not found:
            raise UsageWrong(
                f"{self.folder}: there is no template ({_PATTERN}); `segrelay template new NAME`"
                " writes one."
            )
        return found

    def triggers(self, template: str) -> list[Trigger]:
        """Return the triggers that use a template."""
        if self.settings is None:
            return []
        return [one for one in self.settings.triggers.values() if one.template == template]

    def trigger(self, name: str) -> Trigger:
        """Return the trigger of this name."""
        if self.settings is None:
            raise UsageWrong("--trigger needs the configuration, which --templates leaves out.")
        return configured("trigger", name, self.settings.triggers)

    def cases(self, template: str) -> list[Case]:
        """Return the samples of a template's triggers, or else the shipped samples."""
        now = datetime.now(UTC)
        if self.settings is not None and (triggers := self.triggers(template)):
            return [
                Case(
                    f"trigger {one.name}", profile_for(self.settings, one, now), dict(one.settings)
                )
                for one in triggers
            ]
        return [Case(way.value, sample_profile(way, now), {}) for way in Direction]


def workspace_of(named: Path | None) -> Workspace:
    """Return the named folder, or else the configured one.

    Raises:
        ConfigurationInvalid: None was named, and the configuration is not right.
    """
    if named is None:
        settings = load_settings()
        return Workspace(settings.templates_folder, settings)
    if not named.is_dir():
        raise UsageWrong(f"{named}: there is no such folder.")
    return Workspace(named, None)


def full_name(name: str) -> str:
    """Return a template's name with its suffix, which may be left out."""
    return name if name.endswith((SUFFIX, ".libsonnet")) else name + SUFFIX


def names_in(folder: Path) -> list[str]:
    """Return the names of all templates of a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob(_PATTERN) if p.is_file())


def shipped_models() -> list[str]:
    """Return the names of the shipped templates, without their suffix."""
    return [name.removesuffix(SUFFIX) for name in names_in(SHIPPED_FOLDER)]
