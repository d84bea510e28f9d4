"""What a process beside deliveries does about messages."""

import threading
import time
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from segrelay.ops.status.alert_store import SENT, AlertStore
from segrelay.ops.status.alerts import Announcer, OutageAnnouncer, start_announcer
from segrelay.ops.status.problems import ILL, HealthProblem
from segrelay.ops.status.standing import WatchedFile
from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import WORKER, Process
from segrelay.worker.contract.redis.connection import connect, now_us
from segrelay.worker.contract.settings import NotifySettings, Secret, load_settings
from tests.configuration import configuration, endpoint, table, trigger
from tests.journeys.endpoint import Endpoint


def settings_with(tmp_path, *tables):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "any.jsonnet").write_text("{}")
    path = tmp_path / "segrelay.toml"
    path.write_text(configuration(endpoint("one"), trigger("vip", destination="one"), *tables))
    return load_settings(path, environ={})


def test_a_process_that_lacks_the_address_says_that_it_announces_nothing(tmp_path):
    settings = settings_with(tmp_path, table("operate.notify", url="env:CHAT_URL"))

    with capture_logs() as said:
        assert start_announcer(settings) is None

    (line,) = said
    assert (line["event"], line["log_level"]) == ("alerts.off", "warning")
    assert "env:CHAT_URL" in line["message"]


def test_without_the_table_nothing_is_said(tmp_path):
    settings = settings_with(tmp_path)

    with capture_logs() as said:
        assert start_announcer(settings) is None

    assert said == []


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as found:
        yield found


def announcer_of(client, settings, address):
    notify = NotifySettings(url=Secret("env:CHAT_URL", address), after_seconds=0.0)
    operate = settings.operate.model_copy(update={"notify": notify})
    settings = settings.model_copy(update={"operate": operate})
    outage = OutageAnnouncer(
        lambda *_: SENT, lambda: True, lambda: None, 5.0, now_seconds=lambda: 0.0, now_ms=lambda: 0
    )
    file = WatchedFile(settings, may_change=False)
    return Announcer(client, file, AlertStore(client, notify), outage)


def test_a_process_that_ends_finishes_the_message_that_it_sends(tmp_path, client):
    """Else it would be claimed by nobody who lives, and come a minute late."""
    is_asked = threading.Event()

    def answer(_):
        is_asked.set()
        time.sleep(1)
        return 200, {}

    with Endpoint(answer) as chat:
        announcer = announcer_of(client, settings_with(tmp_path), chat.url)
        names = ("redis_full", "no_worker")
        announcer.store.observe(
            [HealthProblem(name, ILL, "", "why", "do") for name in names], 1_000
        )
        thread = threading.Thread(target=announcer.round)
        thread.start()
        assert is_asked.wait(20)

        announcer.end()

        left = client.hvals(keys.ALERTS_OUTBOX)
        assert any(b"no_worker" in each for each in left)
        assert not any(b'"token"' in each for each in left), "nobody has claimed it"
        thread.join(20)
        assert len(chat.came) == 1


def test_a_process_with_an_older_configuration_leaves_it_to_the_others_to_judge(tmp_path, client):
    older = settings_with(tmp_path)
    newer = older.model_copy(update={"fingerprint": "newer"})
    worker = Process("elsewhere", 7, WORKER, "newer", begun_ms=1)
    client.zadd(keys.PROCESSES, {worker.dumps(): now_us(client)})
    with Endpoint(lambda _: (200, {})) as chat:
        announcer_of(client, older, chat.url).round()
        assert not client.hexists(keys.ALERTS, "observed")

        client.delete(keys.ALERTS_LOCK)
        announcer_of(client, newer, chat.url).round()
        assert client.hexists(keys.ALERTS, "observed")
