"""The templates folder of a command, the triggers that use its templates, and new templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from segrelay.ops.terminal.options import configured
from segrelay.templates import LYTICS_TYPES, SHIPPED_FOLDER
from segrelay.worker.checks.preview import profile_for, sample_profile
from segrelay.worker.contract.settings import Settings, Trigger, load_settings
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import UsageWrong

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
    str, typer.Option("--settings", help="The trigger's settings, a JSON object.", metavar="JSON")
]
TemplateArgument = Annotated[str, typer.Argument(help="Below the templates folder.")]


SUFFIX: Final = ".jsonnet"
"""The ending of a template that may be left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A sample to render.

    Args:
        label: Its kind and name, e.g. `enter` or `trigger vip-enter`.
        profile: With one entry in `segment_events`.
        settings: The trigger's settings.
    """

    label: str
    profile: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workspace:
    """A templates folder, with the configuration that uses it.

    Args:
        settings: None where the folder was named and no configuration is read.
    """

    folder: Path
    settings: Settings | None

    def names(self, wanted: Sequence[str] = ()) -> list[str]:
        """Return the names of templates, all by default."""
        found = [self.name_of(name) for name in wanted] or names_in(self.folder)
        if not found:
            raise UsageWrong(
                f"{self.folder}: there is no template ({' or '.join(LYTICS_TYPES)});"
                " `segrelay template new NAME` writes one."
            )
        return found

    def name_of(self, given: str) -> str:
        """Return the name of a template; a path to it, as shells complete it, is one, too."""
        name = full_name(given, self.folder)
        folder, path = self.folder.resolve(), Path(name).resolve()
        if not Path(name).is_absolute() and (folder / name).is_file():
            return name
        is_below = path.is_file() and path.is_relative_to(folder)
        return path.relative_to(folder).as_posix() if is_below else name

    def triggers(self, template: str) -> list[Trigger]:
        """Return the triggers that use a template."""
        if self.settings is None:
            return []
        return [one for one in self.settings.triggers.values() if one.template == template]

    def users(self, template: str) -> list[Trigger]:
        """Return the triggers that make a body, a URL or a header with a template."""
        if self.settings is None:
            return []
        settings = self.settings
        return [one for one in settings.triggers.values() if template in files_of(settings, one)]

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
                    f"trigger {one.name}",
                    profile_for(self.settings, one, now),
                    dict(one.settings),
                )
                for one in triggers
            ]
        return [Case(way.value, sample_profile(way, now), {}) for way in Direction]


def files_of(settings: Settings, trigger: Trigger) -> set[str]:
    """Return the names of a trigger's templates: of its body, its URL, and its headers."""
    headers = settings.http_of(trigger).header_templates
    return {trigger.template, trigger.url.template, *headers.values()}


def workspace_of(named: Path | None) -> Workspace:
    """Return the named folder, or else the configured one."""
    if named is None:
        settings = load_settings()
        return Workspace(settings.templates_folder, settings)
    if not named.is_dir():
        raise UsageWrong(f"{named}: there is no such folder.")
    return Workspace(named, None)


def full_name(name: str, folder: Path) -> str:
    """Return a template's name with its suffix, which may be left out.

    Without one it is Jsonnet, unless the folder has a template in JavaScript alone.
    """
    if Path(name).suffix in {*LYTICS_TYPES, ".libsonnet"} or (folder / name).is_file():
        return name
    named = (name + suffix for suffix in LYTICS_TYPES)
    return next((one for one in named if (folder / one).is_file()), name + SUFFIX)


def names_in(folder: Path) -> list[str]:
    """Return the names of all templates of a folder."""
    found = (path for path in folder.rglob("*") if path.suffix in LYTICS_TYPES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def shipped_models() -> list[str]:
    """Return the names of the shipped templates, without their suffix."""
    names = names_in(SHIPPED_FOLDER)
    return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]


_STARTS: Final = Path(__file__).with_name("starts")
"""A commented template to begin with for each API and language; `{name}` in it is its name."""


def write_new(folder: Path, name: str, model: str, *, api: str = "insider") -> Path:
    """Write a new template: a copy of a shipped one, or the commented start for an API."""
    path = folder / full_name(name, folder)
    if path.name != Path(name).name and Path(name).suffix[1:].isalpha():
        raise UsageWrong(f"{name}: a template ends in .jsonnet, .js or .libsonnet, or in nothing.")
    if model and path.suffix == ".js":
        raise UsageWrong("The shipped templates are Jsonnet; a template in JavaScript begins bare.")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageWrong(f"{name} leads outside of {folder}.")
    if path.exists():
        raise UsageWrong(f"{path}: there is a file already; choose another name.")
    suffix = ".js" if path.suffix == ".js" else SUFFIX
    start = (_STARTS / f"{api}{suffix}").read_text("utf-8")
    text = start.replace("{name}", str(path.relative_to(folder)))
    if model:
        short = model.removesuffix(SUFFIX)
        if short not in shipped_models():
            raise UsageWrong(
                f"There is no model {model}; there are: {', '.join(shipped_models())}."
            )
        text = (SHIPPED_FOLDER / (short + SUFFIX)).read_text("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path
