"""Checks of how requests are made: parts that do not fit each other, templates that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from worker.contract.problems import Problem, did_you_mean, place_of
from worker.contract.settings.http import HttpRequests, TemplateChoice
from worker.contract.settings.sections import Destination, Trigger

HTTP_ONLY: Final = 'is for destinations with api = "http" only'
_SECRET_PARTS: Final = ("{timestamp}", "{body}")


def problems_of_requests(trigger: Trigger, destination: Destination) -> Iterator[Problem]:
    """Yield the contradictions in how the requests of a trigger are made."""
    path = ("triggers", trigger.name)
    if destination.api != "http":
        if trigger.http.model_fields_set:
            yield Problem(place_of((*path, "http")), HTTP_ONLY)
        if trigger.url.template:
            yield Problem(place_of((*path, "url")), f"as a template {HTTP_ONLY}")
        return
    http = destination.http.changed_by(trigger.http)
    if http.encoding != "json" and (http.results > 1 or http.envelope):
        yield Problem(place_of((*path, "http", "encoding")),
                      f'"{http.encoding}" holds one result: results has to be 1, without envelope'
                      )  # fmt: skip
    if http.method == "GET" and trigger.template:
        yield Problem(place_of((*path, "template")), "makes a body, and a GET has none",
                      'leave it out, and write url = { template = "…" }')  # fmt: skip
    if http.sign and not any(part in http.sign.of for part in _SECRET_PARTS):
        yield Problem(place_of((*path, "http", "sign", "of")),
                      "signs the same for every request", "write {timestamp}.{body}")  # fmt: skip


def problems_of_templates(folder: Path, trigger: Trigger) -> Iterator[Problem]:
    """Yield the templates of a trigger that are not there."""
    path = ("triggers", trigger.name)
    if not trigger.main_template:
        yield Problem(place_of((*path, "template")), "is missing")
    for key, template in (("template", trigger.template), ("url", trigger.url.template)):
        if template:
            yield from _missing(folder, template, place_of((*path, key)))
    yield from missing_templates(folder, trigger.http, path)


def missing_templates(folder: Path, http: HttpRequests, path: tuple[str, ...]) -> Iterator[Problem]:
    """Yield the templates of an `http` table that are not there."""
    for header, template in http.header_templates.items():
        yield from _missing(folder, template, place_of((*path, "http", "headers", header)))
    if isinstance(http.envelope, TemplateChoice):
        place = place_of((*path, "http", "envelope"))
        yield from _missing(folder, http.envelope.template, place)


def _missing(folder: Path, template: str, place: str) -> Iterator[Problem]:
    if (folder / template).is_file():
        return
    there = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*.jsonnet"))]
    near = did_you_mean(template, there)
    yield Problem(place, f"there is no {template} in {folder}", near if "mean" in near else "")
