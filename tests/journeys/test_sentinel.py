"""Redis behind Sentinels: a replica takes over while everything runs, twice."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ops.invented import payloads, truth
from ops.rig import free_port
from tests.journeys.play import SHORT, Rig, invent, lines, nothing_is_wrong, start_worker
from tests.journeys.test_backfill import AS_OF, rows_as_happenings, write_rows
from tests.sentinels import Sentinels
from tests.waiting import until

LATENCY = {"latency_seconds": 0.02}
ROWS = 20_000
SECRET = "secret"
PORTS = """
[producer.webhook]
listen = "127.0.0.1:{receiver}"
secret = "secret"

[flower]
listen = "127.0.0.1:{flower}"
user = "ops"
password = "plain"
"""


@pytest.fixture
def sentinels(tmp_path):
    with Sentinels(tmp_path / "redis") as started:
        yield started


class Lytics(threading.Thread):
    """Posts payloads to the receiver, one after the other, and keeps those that were not taken."""

    def __init__(self, url, texts):
        super().__init__(daemon=True)
        self.url, self.left = url, list(texts)
        self.failed, self.answers, self._ends = [], [], threading.Event()

    def run(self):
        with httpx.Client(headers={"X-Segrelay-Secret": SECRET}, timeout=20) as client:
            while self.left and not self._ends.wait(0.01):
                text = self.left.pop()
                answer = client.post(self.url, content=text)
                self.answers.append(answer)
                if answer.status_code != httpx.codes.OK:
                    self.failed.append(text)

    def end(self):
        """Return what was not taken."""
        self._ends.set()
        self.join()
        return [*self.failed, *self.left]


def beside(rig, *arguments, given=b""):
    """Start a command; returns a function that waits for its end, and returns how it ended."""
    pool = ThreadPoolExecutor(1)
    return pool.submit(rig.command, *arguments, given=given).result


def take_over(sentinels, *, by_kill):
    import time

    t = time.time()
    """Let a replica take over, and wait until both others follow it."""
    before = sentinels.master()
    if by_kill:
        sentinels.kill_master()
        after = sentinels.await_other_master(before)
        sentinels.start_server(before, after)
    else:
        sentinels.fail_over()
        sentinels.await_other_master(before)
    sentinels.await_replicas(2)
    print("took over", time.time() - t)


def test_two_replicas_take_over_and_nothing_is_wrong_once_what_failed_was_sent_again(
    sentinels, tmp_path
):
    happened, sent = invent(6_000, 1_500, seed=62)
    posted, *files = (sent[at::3] for at in range(3))
    emails = [f"row{number}@example.com" for number in range(ROWS)]
    rows = write_rows(tmp_path / "rows.ndjson", emails)
    receiver, flower = free_port(), free_port()
    more = PORTS.format(receiver=receiver, flower=flower)
    with Rig(
        tmp_path,
        redis_url=sentinels.url,
        redis_lines="high_water = 2000",
        delivery_lines=SHORT,
        sandbox_settings=LATENCY,
        more=more,
    ) as rig:
        start_worker(rig)
        rig.start_beside("serve")
        rig.start_beside("flower")
        url = f"http://127.0.0.1:{receiver}"
        until(lambda: _answers(f"{url}/readyz"), 60)
        job = ("backfill", "start", rows, "--audience", "vip", "--as-of", AS_OF.isoformat())
        lytics = Lytics(f"{url}/v1/lytics", payloads(posted))
        lytics.start()
        reading = beside(rig, *job, "--name", "load")

        sending = beside(rig, "send", "-", given=lines(files[0]))
        take_over(sentinels, by_kill=True)
        assert sending(60).returncode == 0, sending().stderr
        sending = beside(rig, "send", "-", given=lines(files[1]))
        take_over(sentinels, by_kill=False)
        assert sending(60).returncode == 0, sending().stderr
        failed = lytics.end()

        assert reading(60).returncode == 0, reading().stderr
        assert rig.command("send", "-", given=b"\n".join(failed) + b"\n").returncode == 0
        import collections
        import time

        print(
            len(failed),
            len(lytics.answers),
            collections.Counter(a.status_code for a in lytics.answers),
            {a.text for a in lytics.answers if a.status_code != 200},
        )
        print("emptying", time.time())
        rig.wait_until_empty(60)
        print("empty", time.time())
        want, have = truth(happened + rows_as_happenings(emails, "vip")), rig.memberships()
        wrong = {
            k: (want.get(k), have.get(k)) for k in {*want, *have} if want.get(k) != have.get(k)
        }
        print(len(wrong), list(wrong.items())[:20])
        nothing_is_wrong(rig, happened + rows_as_happenings(emails, "vip"))


def _answers(url):
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
