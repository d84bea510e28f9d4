"""Writing a new template: a commented start, or a copy of a shipped one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ops.templates.workspace import SUFFIX, full_name, shipped_models
from worker.errors import UsageWrong
from worker.jsonnet.files import SHIPPED_FOLDER

_START: Final = """\
// What a profile becomes. This is Jsonnet (https://jsonnet.org): JSON with variables, conditions
// and functions. The value of the file is the body that is sent.
//
// `segrelay template render {name} samples/enter.json` shows what comes out,
// `segrelay template watch {name} samples/enter.json` does so at every save.
local event = import "lytemplates.libsonnet";  // the profile, and what happened to it
local insider = import "insider.libsonnet";  // what templates for Insider share

// An assert that fails skips the event; it counts as skipped, with this message.
assert event.has("email") : "no email";

{{
  users: [
    {{
      // Who is meant. Use the same identifiers in every template, or an exit misses the person.
      identifiers: insider.identifiers,
      attributes: {{
        // Insider's own attributes. What the profile does not have is null, and is left out.
        email: event.get("email"),
        name: event.get("first_name"),
        custom: {{
          // Yours, which have to be defined in Insider's panel. The second argument of `get` is
          // what counts where the field is missing.
          status: event.get("status", "unknown"),
          // The slug of the audience, put into the person's list on an entrance. A template for
          // exits takes it out: `segrelay template new NAME --from insider/exit`.
          [if event.isEnter() then insider.audienceAttribute]: [event.segSlug()],
        }},
      }},
    }},
  ],
}}
"""


def write_new(folder: Path, name: str, model: str) -> Path:
    """Write a new template.

    Args:
        folder: The templates folder.
        name: The path below the folder; its suffix may be left out.
        model: A shipped template; "" = the commented start.
    """
    path = folder / full_name(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageWrong(f"{name} leads outside of {folder}.")
    if path.exists():
        raise UsageWrong(f"{path}: there is a file already; choose another name.")
    text = _model(model) if model else _START.format(name=full_name(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def _model(name: str) -> str:
    models = shipped_models()
    short = name.removesuffix(SUFFIX)
    if short not in models:
        raise UsageWrong(f"There is no model {name}; there are: {', '.join(models)}.")
    return (SHIPPED_FOLDER / full_name(short)).read_text("utf-8")
