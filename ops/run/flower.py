"""The real Flower, on the workers' broker, behind basic authentication.

It only shows, unless the configuration allows actions; it starts no task in any case.

It is put together here as `celery flower` does it, but for `flowerconfig.py`: that would be
executed from whatever folder is the current one. And no password stands on a command line.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog
from celery import Celery
from flower.app import Flower
from flower.command import apply_env_options, extract_settings, setup_logging
from flower.options import default_options
from flower.urls import settings as page_settings
from flower.views import BaseHandler
from tornado import web
from tornado.options import options

from segrelay.ops.run.up import refuse_taken
from segrelay.ops.state.opened import load_for_redis
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.terminal.serving import listening_at
from segrelay.worker import logs
from segrelay.worker.contract.celery import broker_options
from segrelay.worker.contract.settings.sections import FlowerSettings
from segrelay.worker.errors import ConfigurationInvalid
from segrelay.worker.node.celery_app import NO_FREE_PERMIT

LOG: Final = structlog.get_logger()
_COLUMNS: Final = "name,args,state,result,received,runtime,worker,uuid"
"""The columns of the list of tasks; Flower's default shows neither partition nor outcome."""
_TAKEN: Final = re.compile(
    "auto_refresh|ca_certs|certfile|cookie_secret|db|enable_events|inspect_timeout|keyfile"
    "|max_tasks|max_workers|natural_time|persistent|purge_offline_workers|state_save_interval"
    "|task_runtime_metric_buckets|tasks_columns|xheaders"
)
"""Flower's options that `FLOWER_…` variables may set; none of them removes the password."""
_CLOSED: Final = re.compile("/metrics|/api/task/(apply|async-apply|send-task)")


def run_flower(listen: str) -> None:
    """Run Flower until it is stopped.

    Args:
        listen: The address, as HOST:PORT; "" = that of `flower.listen`.
    """
    settings = load_for_redis()
    section = settings.flower
    if section is None or not section.password.reveal():
        raise ConfigurationInvalid(
            f"{settings.source.name}: [flower] is missing or has no password: add it, with password"
            ' = "env:NAME".'
        )
    section = listening_at(section, listen)
    refuse_taken(section.host, section.port, "set flower.listen")
    app = Celery("segrelay-flower")
    app.conf.update(broker_options(settings))
    logs.configure(logging.INFO)
    # It warns of each question that no worker answers; `segrelay status` says that none runs.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    start_announcer(settings, only_watches=True)
    _apply(section)
    _serve(app)


def _apply(section: FlowerSettings) -> None:
    """Set Flower's options, from the environment and then from the configuration."""
    for name in {*default_options, "unauthenticated_api"}:
        variable = f"FLOWER_{name.upper()}"
        if not _TAKEN.fullmatch(name) and os.environ.pop(variable, None) is not None:
            message = f"{variable} is ignored: see [flower] in segrelay.toml."
            LOG.warning("flower.variable_ignored", message=message)
    os.environ.setdefault("FLOWER_TASKS_COLUMNS", _COLUMNS)
    try:
        apply_env_options()
    except ValueError as error:
        raise ConfigurationInvalid(f"Flower can't read a FLOWER_… variable: {error}.") from error
    options.basic_auth = [f"{section.user}:{section.password.reveal()}"]
    options.read_only = not section.actions
    options.address, options.port = section.host, section.port
    options.run_parse_callbacks()
    extract_settings()
    setup_logging()


def _serve(app: Celery) -> None:
    pages = _Watch(options=options, capp=app, **page_settings)
    pages.events.on_event = lambda event: pages.io_loop.add_callback(
        partial(_take, pages.events.state, event)
    )
    atexit.register(pages.stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pages.start_http_server()
    with suppress(KeyboardInterrupt, SystemExit):
        pages.start()


def _take(state: Any, event: dict[str, Any]) -> None:
    """Take an event, and forget a drain that ended because it found no free permit.

    There can be hundreds of these a second beside one that did something, and Flower keeps a
    limited number of tasks: they would push the others out.
    """
    if event["type"] == "task-failed":
        # The column of results tells what came of a drain that ended badly, too.
        event["result"] = event.get("exception")
    state.event(event)
    if event["type"] == "task-succeeded" and event.get("result") == NO_FREE_PERMIT:
        state.tasks.pop(event["uuid"], None)
        state.search_engine.remove(event["uuid"])


class _Watch(Flower):  # type: ignore[misc] # Flower is not typed
    def find_handler(self, request: Any, **given: Any) -> Any:
        """Return the handler of a request; changes are refused unless [flower] allows actions.

        Flower's metrics, which ask for no password, and the start of tasks are refused in any case.
        """
        reads = request.method in {"GET", "HEAD"} or request.path == "/tasks/datatable"
        is_closed = _CLOSED.match(request.path)
        if is_closed or (self.options.read_only and not reads):
            return self.get_handler_delegate(request, _Refusal)
        return super().find_handler(request, **given)


class _Refusal(BaseHandler):  # type: ignore[misc] # Flower is not typed
    def prepare(self) -> None:
        """Refuse the request; without the password it is answered as on all pages."""
        if self.current_user:
            raise web.HTTPError(403, "This page only shows; see flower.actions in segrelay.toml")

    def check_xsrf_cookie(self) -> None:
        """Skip the check of the XSRF cookie, as the request is refused anyway."""
