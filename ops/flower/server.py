"""The real Flower, on the workers' broker, behind basic authentication.

It has a readable list of drains, all workers from the start, and a password.

It only shows, unless the configuration allows actions; it starts no task in any case.

It is put together here as `celery flower` does it, but for `flowerconfig.py`: that would be
executed from whatever folder is the current one.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any, Final

import structlog
from celery import Celery
from flower.api.workers import ListWorkers
from flower.app import Flower
from flower.command import apply_env_options, extract_settings, setup_logging
from flower.events import Events
from flower.options import default_options
from flower.urls import settings as page_settings
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from flower.views.workers import WorkersView
from tornado import web
from tornado.escape import xhtml_escape
from tornado.options import options

from segrelay.ops.state.opened import load_for_redis, seen_as
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.terminal.serving import listening_at
from segrelay.worker import logs
from segrelay.worker.contract.celery import VERSION_KEY, broker_options
from segrelay.worker.contract.processes import FLOWER
from segrelay.worker.contract.redis.connection import resolve_url
from segrelay.worker.contract.settings import FlowerSettings
from segrelay.worker.errors import ConfigurationInvalid, PortTaken
from segrelay.worker.node.task import NO_FREE_PERMIT

LOG: Final = structlog.get_logger()


def run_flower(listen: str) -> None:
    """Run Flower until it is stopped.

    Args:
        listen: The address, as HOST:PORT; "" = that of `flower.listen`.
    """
    settings = load_for_redis()
    section = settings.flower
    if section is None:
        raise ConfigurationInvalid(
            f'{settings.source.name}: [flower] is missing: add it, with password = "env:NAME".'
        )
    credentials = _credentials(section, settings.source.name)
    section = listening_at(section, listen)
    app = Celery("segrelay-flower")
    app.conf.update(broker_options(settings))
    with seen_as(FLOWER, resolve_url(settings.redis)):
        start_announcer(settings, only_watches=True)
        _run(app, section, credentials)


def _credentials(section: FlowerSettings, file: str) -> str:
    password = section.password.reveal()
    if not password:
        raise ConfigurationInvalid(
            f"{file}: flower.password is empty, so anybody could see everything."
        )
    return f"{section.user}:{password}"


def _run(app: Any, section: FlowerSettings, credentials: str) -> None:
    """Run Flower in this process: no password stands on a command line."""
    logs.configure(logging.INFO)
    # It warns of each question that no worker answers; `segrelay status` says that none runs.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    for ignored in apply_variables():
        LOG.warning("flower.variable_ignored", message=ignored)
    try:
        serve(
            app,
            address=section.host,
            port=section.port,
            credentials=credentials,
            has_actions=section.actions,
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTaken(
            f"Something listens on {section.listen} already: end it, or set flower.listen."
        ) from error


PREFIX: Final = "FLOWER_"
_COLUMNS: Final = "name,args,state,result,received,runtime,worker,uuid"
"""The columns of the list of tasks; Flower's default shows neither partition nor outcome."""
_USED: Final = frozenset(
    {
        "auto_refresh",
        "ca_certs",
        "certfile",
        "cookie_secret",
        "db",
        "enable_events",
        "inspect_timeout",
        "keyfile",
        "max_tasks",
        "max_workers",
        "natural_time",
        "persistent",
        "purge_offline_workers",
        "state_save_interval",
        "task_runtime_metric_buckets",
        "tasks_columns",
        "xheaders",
    }
)
_LISTEN: Final = "set flower.listen in segrelay.toml"
_SIGN_IN: Final = "set flower.user and flower.password in segrelay.toml"
_INSTEAD: Final = {
    "address": _LISTEN,
    "port": _LISTEN,
    "unix_socket": _LISTEN,
    "basic_auth": _SIGN_IN,
    "auth": _SIGN_IN,
    "auth_provider": _SIGN_IN,
    "oauth2_key": _SIGN_IN,
    "oauth2_secret": _SIGN_IN,
    "oauth2_redirect_uri": _SIGN_IN,
    "unauthenticated_api": _SIGN_IN,
    "read_only": "set flower.actions in segrelay.toml",
    "url_prefix": "let your proxy serve Flower under a host name of its own",
}


_OPTIONS: Final = frozenset({*default_options, *_INSTEAD})


def apply_variables(environ: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """Set Flower's options from the environment; yield a line for each variable that is ignored."""
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX).lower()
        if variable == PREFIX + name.upper() and name in _OPTIONS - _USED:
            del environ[variable]
            advice = _INSTEAD.get(name, "segrelay does not use this option of Flower")
            yield f"{variable} is ignored: {advice}"
    environ.setdefault(f"{PREFIX}TASKS_COLUMNS", _COLUMNS)
    try:
        apply_env_options()
    except ValueError as error:
        names = ", ".join(v for v in sorted(environ) if v.removeprefix(PREFIX).lower() in _USED)
        raise ConfigurationInvalid(
            f"One of {names} has a value that Flower can't read: {error}."
        ) from error


_ANY_HOST: Final = r".*"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_TABLE: Final = "/tasks/datatable"
"""The path of the list of tasks, which the page asks for with POST although it only reads."""
_CAPTION_OF_VERSIONS: Final = b"Cluster overview"
"""The caption of the page of workers that is replaced by the workers' versions."""
_STARTS_TASKS: Final = re.compile(r"/api/task/(?:apply|async-apply|send-task)/")


def serve(app: Any, *, address: str, port: int, credentials: str, has_actions: bool) -> None:
    """Run Flower until it is told to stop, with the options that `apply_variables` has set.

    No page but the health check answers without the credentials, `user:password`. With actions,
    whoever signs in can stop workers and queues, and revoke tasks.
    """
    options.basic_auth = [credentials]
    options.read_only = not has_actions
    options.address, options.port = address, port
    options.run_parse_callbacks()
    extract_settings()
    setup_logging()
    watch = _Watch(options=options, capp=app, **page_settings)
    atexit.register(watch.stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    watch.start_http_server()
    try:
        watch.start()
    except (KeyboardInterrupt, SystemExit):
        return


def versions_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the names of workers by their version of segrelay, from their answers to Flower."""
    found: dict[str, list[str]] = {}
    for name, told in sorted(workers.items()):
        number = (told.get("conf") or {}).get(VERSION_KEY, "of an older version")
        found.setdefault(str(number), []).append(name)
    return found


class _Events(Events):  # type: ignore[misc] # Flower is not typed
    """Flower's record of events, without the drains that found no free permit.

    There can be hundreds of them a second beside one that did something, and Flower keeps only so
    many tasks: they would push the others out.
    """

    def on_event(self, event: dict[str, Any]) -> None:
        """Take an event, in the thread that receives them."""
        self.io_loop.add_callback(partial(self._take, event))

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "task-failed":
            # The column of results tells what came of a drain that ended badly, too.
            event["result"] = event.get("exception")
        self.state.event(event)
        if event["type"] == "task-succeeded" and event.get("result") == NO_FREE_PERMIT:
            self.state.tasks.pop(event["uuid"], None)
            self.state.search_engine.remove(event["uuid"])

    def seen(self, worker: str) -> None:
        """Record that a worker is alive that has sent no event yet."""
        now = time.time()
        heartbeat = {"type": "worker-heartbeat", "timestamp": now, "local_received": now}
        self.state.event({**heartbeat, "hostname": worker, "clock": 0, "freq": 2})


class _Watch(Flower):  # type: ignore[misc] # Flower is not typed
    """Flower's application, with three pages of our own."""

    def __init__(self, **given: Any) -> None:
        super().__init__(events=None, **given)
        self.events = _Events(
            self.capp,
            io_loop=self.io_loop,
            db=self.options.db,
            persistent=self.options.persistent,
            state_save_interval=self.options.state_save_interval,
            enable_events=self.options.enable_events,
            max_workers_in_memory=self.options.max_workers,
            max_tasks_in_memory=self.options.max_tasks,
        )
        pages = [(r"/(?:workers)?", _WorkersPage), (r"/api/workers", _WorkersApi)]
        pages += [(r"/metrics", _GuardedMetrics)]
        self.add_handlers(_ANY_HOST, pages)

    def find_handler(self, request: Any, **given: Any) -> Any:
        """Return the handler of a request; every request that would change something is refused."""
        if self._is_refused(request):
            return self.get_handler_delegate(request, _RefusedAction)
        return super().find_handler(request, **given)

    def _is_refused(self, request: Any) -> bool:
        if request.method in _READS or request.path == _TABLE:
            return False
        return bool(self.options.read_only or _STARTS_TASKS.match(request.path))

    async def know_workers(self) -> None:
        """Ask which workers run if none is known yet, so that the first page lists them."""
        if not self.inspector.workers:
            await self.update_workers()
        for worker in self.inspector.workers:
            if worker not in self.events.state.workers:
                self.events.seen(worker)


class _RefusedAction(BaseHandler):  # type: ignore[misc] # Flower is not typed
    """Refuses requests that would change something."""

    def prepare(self) -> None:
        """Refuse the request; without the password it is answered as on all pages."""
        if self.current_user:
            raise web.HTTPError(403, "This page only shows; see flower.actions in segrelay.toml")

    def check_xsrf_cookie(self) -> None:
        """Skip the check of the XSRF cookie, as the request is refused anyway."""


class _WorkersPage(WorkersView):  # type: ignore[misc] # Flower is not typed
    @web.authenticated
    async def get(self) -> None:
        """Show the workers, even on the first page after Flower has started."""
        await self.application.know_workers()
        await super().get()

    def render_string(self, template_name: str, **given: Any) -> bytes:
        """Return the page, with the workers' versions on top."""
        page: bytes = super().render_string(template_name, **given)
        told = "; ".join(
            f"segrelay {number}: {', '.join(workers)}"
            for number, workers in versions_of(self.application.workers).items()
        )
        return page.replace(
            _CAPTION_OF_VERSIONS, xhtml_escape(told).encode() or _CAPTION_OF_VERSIONS
        )


class _WorkersApi(ListWorkers):  # type: ignore[misc] # Flower is not typed
    @web.authenticated
    async def get(self) -> None:
        """Return the workers, even at the first request after Flower has started."""
        await self.application.know_workers()
        await super().get()


class _GuardedMetrics(Metrics):  # type: ignore[misc] # Flower is not typed
    @web.authenticated
    async def get(self) -> None:
        """Return the metrics to those who know the password; Flower's own asks for none."""
        await super().get()
