"""`/v2/template`: templates at Lytics, with the oddities of the API (lytics.md, 2)."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.sandbox.exchange import Reply, json_answer
from segrelay.sandbox.settings import LyticsSwitches

_NAME: Final = "template.jsonnet"


@dataclass(slots=True)
class RemoteTemplate:
    """A template at Lytics. Its source is never returned: the real API does not either.

    Args:
        desired_format: Without it the template can't be tested.
    """

    id: str
    name: str
    type: str
    description: str
    account_id: str
    source: str
    desired_format: str


class RemoteTemplates:
    """Creates, updates, lists and tests templates."""

    def __init__(self, switches: LyticsSwitches) -> None:
        self.switches = switches
        self.kept: dict[str, RemoteTemplate] = {}

    def answer(self, method: str, rest: str, query: dict[str, str], body: bytes) -> Reply:
        """Answer a request below `/v2/template`; `rest` is the remaining path."""
        parts = [part for part in rest.split("/") if part]
        match method, parts:
            case "GET", []:
                return _ok([_shown(template) for template in self.kept.values()])
            case "POST", []:
                return self._create(query, body)
            case _, [known] if known in self.kept:
                return self._update(method, known, query, body)
            case "POST", [known, "test"] if known in self.kept:
                return self._test(known, body)
        return json_answer(404, {"status": 404, "message": "not found"})

    def _create(self, query: dict[str, str], body: bytes) -> Reply:
        if not query.get("name") or query.get("type") != "jsonnet":
            return json_answer(400, {"status": 400, "message": "name and type are required"})
        name = query["name"]
        number = f"{name}|{len(self.kept)}"
        found = hashlib.md5(number.encode(), usedforsecurity=False).hexdigest()
        self.kept[found] = RemoteTemplate(
            id=found,
            name=name,
            type="jsonnet",
            description=query.get("description", ""),
            account_id=query.get("account_id", ""),
            source=body.decode(errors="replace"),
            desired_format=query.get("desired_format", ""),
        )
        return _ok(_shown(self.kept[found]))

    def _update(self, method: str, known: str, query: dict[str, str], body: bytes) -> Reply:
        if method == "GET":
            return _ok(_shown(self.kept[known]))
        if method != self.switches.template_update_method:
            return json_answer(405, {"status": 405, "message": "method not allowed"})
        template = self.kept[known]
        template.source = body.decode(errors="replace")
        template.description = query.get("description", template.description)
        template.desired_format = query.get("desired_format", template.desired_format)
        return _ok(_shown(template))

    def _test(self, known: str, body: bytes) -> Reply:
        """Answer a test as the live API does: with 200 even if the template fails."""
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError:
            return json_answer(400, {"status": 400, "message": "invalid json"})
        if not self.kept[known].desired_format:
            return Reply(500, b"")
        return _ok(_evaluated(self.kept[known].source, request))


def _evaluated(source: str, request: dict[str, Any]) -> Any:
    """Render an entity; return an error text like those of Lytics if the template fails."""
    from segrelay.worker.checks.preview import preview_rendering  # noqa: PLC0415 - nothing else here
    # needs the engines, and a sandbox is started often.

    entity = request.get("entity")
    settings = request.get("job_config")
    profile = orjson.dumps(entity if isinstance(entity, dict) else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _NAME).write_text(source, "utf-8")
        try:
            [result] = preview_rendering(
                folder, _NAME, [("", profile)], settings if isinstance(settings, dict) else {}
            )
        except TemplateBroken as error:
            return f"RUNTIME ERROR: {error.message}"
    return result.body if result.rendering == "rendered" else f"RUNTIME ERROR: {result.message}"


def _shown(template: RemoteTemplate) -> dict[str, Any]:
    shown = asdict(template)
    del shown["source"], shown["desired_format"]
    return shown


def _ok(value: Any) -> Reply:
    return json_answer(200, {"status": 200, "message": "success", "data": value})
