"""Lytics' API (scans, entities, collect, templates), and the controls of the Lytics side."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import unquote

import orjson

from segrelay.sandbox.exchange import Reply, error, json_answer
from segrelay.sandbox.lytics.account import Account, MembershipChange, Move, Scans
from segrelay.sandbox.lytics.webhooks import WebhookJob, WebhookSender
from segrelay.sandbox.settings import LyticsSwitches

_NAMES: Final = {"jsonnet": "template.jsonnet", "js1": "template.js"}
"""The name of a template's file, by its type; the ending is that of its language."""
_SECONDS: Final = 10.0
_MEMORY_BYTES: Final = 1_024**3


@dataclass(slots=True)
class RemoteTemplate:
    """A template at Lytics. Its source is never returned: the real API does not either.

    Args:
        desired_format: The format of its result; without one the template can't be tested.
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
        if not query.get("name") or query.get("type") not in _NAMES:
            return json_answer(400, {"status": 400, "message": "name and type are required"})
        name = query["name"]
        number = f"{name}|{len(self.kept)}"
        found = hashlib.md5(number.encode(), usedforsecurity=False).hexdigest()
        self.kept[found] = RemoteTemplate(
            id=found,
            name=name,
            type=query["type"],
            description=query.get("description", ""),
            account_id=query.get("account_id", ""),
            source=body.decode(errors="replace"),
            desired_format=query.get("desired_format", ""),
        )
        return _ok(_shown(self.kept[found]))

    def _update(self, method: str, known: str, query: dict[str, str], body: bytes) -> Reply:
        if method == "GET":
            return _ok(_shown(self.kept[known]))
        if method != "PUT":
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
        return _ok(_evaluated(self.kept[known], request))


def _evaluated(template: RemoteTemplate, request: dict[str, Any]) -> Any:
    """Render an entity; return an error text like those of Lytics if the template fails."""
    # Nothing else here needs the engines, and a sandbox is started often.
    from segrelay.jsonnet.files import TemplateFolder  # noqa: PLC0415
    from segrelay.jsonnet.isolated import DiedAt, render_isolated  # noqa: PLC0415
    from segrelay.jsonnet.rendered import Rendered, Row  # noqa: PLC0415
    from segrelay.templates import LYTEMPLATES  # noqa: PLC0415

    entity = request.get("entity")
    settings = request.get("job_config")
    profile = orjson.dumps(entity if isinstance(entity, dict) else {})
    row = Row(profile, settings if isinstance(settings, dict) else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = _NAMES[template.type]
        (folder / file).write_text(template.source, "utf-8")
        try:
            bundle = TemplateFolder(folder, LYTEMPLATES).bundle(file)
            answer = render_isolated(bundle, [row], seconds=_SECONDS, memory_bytes=_MEMORY_BYTES)
        except Exception as broken:  # noqa: BLE001 - Lytics answers 200 whatever is wrong with it
            return f"RUNTIME ERROR: {broken.args[0]}"
    if isinstance(answer, DiedAt):
        return "RUNTIME ERROR: the template does not end, or needs too much memory"
    [result] = answer
    if isinstance(result, Rendered):
        return orjson.loads(result.body)
    return f"RUNTIME ERROR: {result.message}"


def _shown(template: RemoteTemplate) -> dict[str, Any]:
    shown = asdict(template)
    del shown["source"], shown["desired_format"]
    return shown


def _ok(value: Any) -> Reply:
    return json_answer(200, {"status": 200, "message": "success", "data": value})


RECORD_BYTES: Final = 4 * 1024
"""The largest size of a single record in bytes."""
RECORD_BYTES_IN_BATCH: Final = 16 * 1024
BODY_BYTES: Final = 10_000_000
_KEPT: Final = 100_000


class Collect:
    """The collect API: it keeps records by response stream, and counts rejected ones."""

    def __init__(self, switches: LyticsSwitches) -> None:
        self.switches = switches
        self.records: dict[str, deque[dict[str, Any]]] = {}
        self.rejected = 0

    def take(self, stream: str, body: bytes) -> Reply:
        """Accept a record of a response stream, or an array of them."""
        if self.switches.collect_status != 200:  # noqa: PLR2004 - HTTP
            status = self.switches.collect_status
            return json_answer(status, {"status": status, "message": "unavailable"})
        if len(body) >= BODY_BYTES:
            return json_answer(413, {"status": 413, "message": "request body too large"})
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return json_answer(400, {"status": 400, "message": "invalid json"})
        records = value if isinstance(value, list) else [value]
        most = RECORD_BYTES_IN_BATCH if isinstance(value, list) else RECORD_BYTES
        fitting = [record for record in records if _fits(record, most)]
        self.rejected += len(records) - len(fitting)
        self.records.setdefault(stream, deque(maxlen=_KEPT)).extend(fitting)
        counts = {"message_count": len(fitting), "rejected_count": len(records) - len(fitting)}
        return json_answer(200, {"status": 200, "message": "success", "data": counts})


def _fits(record: Any, most: int) -> bool:
    if not isinstance(record, dict) or len(orjson.dumps(record)) > most:
        return False
    return not _has_objects_in_arrays(record)


def _has_objects_in_arrays(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_objects_in_arrays(each) for each in value.values())
    if isinstance(value, list):
        return any(isinstance(each, dict) or _has_objects_in_arrays(each) for each in value)
    return False


API_PREFIXES: Final = ("/api/segment/", "/api/entity/", "/collect/json/", "/v2/template")
CONTROL_PREFIX: Final = "lytics/"
_NOT_FOUND_SEGMENTS: Final = ["not_found", "all"]
_RETRIABLE: Final = frozenset({429, 503})


class Lytics:
    """An account at Lytics with its API and its webhook jobs."""

    def __init__(self, switches: LyticsSwitches) -> None:
        self.account = Account()
        self._senders: dict[str, WebhookSender] = {}
        self._random = Random(switches.seed)  # noqa: S311 - repeatable on purpose
        self.scans = Scans(self.account, switches)
        self.collect = Collect(switches)
        self.templates = RemoteTemplates(switches)
        self.switches = switches

    def configure(self, switches: LyticsSwitches) -> None:
        """Use other switches; profiles and jobs stay."""
        self.switches = self.scans.switches = switches
        self.collect.switches = self.templates.switches = switches

    async def api(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> Reply:
        """Answer a request to Lytics' API."""
        if self.switches.latency_seconds:
            await asyncio.sleep(self.switches.latency_seconds)
        answer = self._fault() or self._answer(method, path, query, headers, body)
        if self.switches.answer_seconds:
            await asyncio.sleep(self.switches.answer_seconds)
        now = time.time() + self.switches.date_offset_seconds
        date = (b"date", formatdate(now, usegmt=True).encode())
        return Reply(answer.status, answer.body, (*answer.headers, date), answer.failed)

    def control(self, method: str, name: str, query: dict[str, str], body: bytes) -> Reply:
        """Answer a request below `/_sandbox/lytics/`: report, add or move profiles, start jobs."""
        value = orjson.loads(body) if body else {}
        match method, name:
            case "POST", "profiles":
                return json_answer(200, {"profiles": self.account.put(value)})
            case "POST", "moves":
                return json_answer(200, {"moved": self.move(value)})
            case "GET", "members":
                slug = query.get("audience", "")
                members = self.account.members_after(slug, "", self.account.total(slug))
                return json_answer(200, [member.shown() for member in members])
            case "POST", "jobs":
                name = value.pop("name", "job")
                job = WebhookJob.model_validate(value)
                if name in self._senders:
                    self._senders[name].stop()
                self._senders[name] = WebhookSender(job, self.account, self.switches)
                return self._jobs()
            case "GET", "jobs":
                return self._jobs()
            case "GET", "collect":
                records = {name: list(kept) for name, kept in self.collect.records.items()}
                return json_answer(200, {"records": records, "rejected": self.collect.rejected})
            case "GET", "templates":
                kept = self.templates.kept.values()
                return json_answer(200, [{"name": t.name, "source": t.source} for t in kept])
        return error(404, f"nothing here: lytics/{name}")

    def move(self, moves: Iterable[dict[str, Any]]) -> int:
        """Move profiles into and out of audiences; webhook jobs send the moves that they want.

        A move is `{"uid", "audience", "change"}`, and `at` for a time other than now.
        """
        count = 0
        for each in moves:
            change: MembershipChange = "enter" if each["change"] == "enter" else "exit"
            if not self.account.move(str(each["uid"]), str(each["audience"]), change):
                continue
            count += 1
            at = each.get("at") or _now(self.switches.date_offset_seconds)
            moved = Move(str(each["uid"]), str(each["audience"]), change, at)
            for sender in self._senders.values():
                sender.add(moved)
        return count

    def stop(self) -> None:
        for sender in self._senders.values():
            sender.stop()

    def _jobs(self) -> Reply:
        return json_answer(200, {name: sender.shown() for name, sender in self._senders.items()})

    def _fault(self) -> Reply | None:
        left = self._random.random()
        for status, share in self.switches.error_shares.items():
            left -= share
            if left < 0:
                return self._failed(int(status))
        return None

    def _failed(self, status: int) -> Reply:
        answer = json_answer(status, {"status": status, "message": "try again later"})
        if status not in _RETRIABLE:
            return answer
        told = str(self.switches.retry_after_seconds).encode()
        return Reply(status, answer.body, (*answer.headers, (b"retry-after", told)))

    def _answer(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> Reply:
        if not self._may(query, headers):
            return json_answer(401, {"status": 401, "message": "invalid api key"})
        parts = [unquote(part) for part in path.split("/") if part]
        match method, parts:
            case "GET", ["api", "segment", name, "scan"]:
                return self.scans.page(name, query, time.time())
            case "GET", ["api", "entity", _, field, value]:
                return self._entity(field, value)
            case "POST", ["collect", "json", stream]:
                return self.collect.take(stream, body)
            case _, ["v2", "template", *rest]:
                return self.templates.answer(method, "/".join(rest), query, body)
        return json_answer(404, {"status": 404, "message": "not found"})

    def _may(self, query: dict[str, str], headers: dict[str, str]) -> bool:
        given = headers.get("authorization") or query.get("key", "")
        wanted = self.switches.token.get_secret_value()
        return given == wanted if wanted else bool(given)

    def _entity(self, field: str, value: str) -> Reply:
        """Return one profile; an unknown one is answered with 200, too."""
        found = self.account.find(field, value)
        data = found.shown() if found else {"segments": _NOT_FOUND_SEGMENTS}
        return json_answer(200, {"status": 200, "message": "success", "data": data})


def _now(offset_seconds: float) -> str:
    now = datetime.fromtimestamp(time.time() + offset_seconds, UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
