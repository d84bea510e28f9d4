"""Lytics' webhooks on the whole system: every documented form, while everything is killed."""

import random

import httpx

from ops.invented.events import AUDIENCES
from ops.rig.rig import free_port, kill_group
from tests.journeys.play import SHORT, Rig, await_ready, sent_twice, start_worker, status_of
from tests.waiting import until

SECRETS = ("the-new-secret", "the-old-secret")
RECEIVER = f"""
[producer.webhook]
listen = "127.0.0.1:PORT"
secret = {list(SECRETS)}
"""
FORMS = (
    {},
    {"batch_requests": True, "batch_size": 20},
    {"batch_requests": True, "compressed": True},
    {"cloud_events": True},
    {"cloud_events": True, "batch_requests": True},
    {"include_segs": True},
)
PEOPLE = 200
MOVES = 30
PROCESSES = 2
QUICK = {"lytics": {"webhook_retry_seconds": 0.2, "webhook_sleep_seconds": 0.5}}


class Relay:
    """A rig with a worker and a receiver, to which Lytics sends each audience in two forms."""

    def __init__(self, rig, port):
        self.rig = rig
        self.url = f"http://127.0.0.1:{port}"
        self.worker = start_worker(rig, f"--concurrency={PROCESSES}")
        self.start_receiver()

    def start_receiver(self):
        self.receiver = self.rig.start_beside("serve")
        until(self._is_alive, 60)

    def _is_alive(self):
        try:
            return httpx.get(f"{self.url}/healthz").is_success
        except httpx.TransportError:
            return False

    def begin(self):
        people = [{"_uid": f"u{n}", "email": f"p{n}@example.com"} for n in range(PEOPLE)]
        self.rig.sandbox.post("lytics/profiles", people)
        for number, form in enumerate(FORMS):
            secret = SECRETS[number % len(SECRETS)]
            in_url = number == 0
            way = {
                "webhook_url": f"{self.url}/v1/lytics" + (f"?secret={secret}" if in_url else ""),
                "headers": {} if in_url else {"X-Segrelay-Secret": secret},
                "segment_ids": [AUDIENCES[number % len(AUDIENCES)]],
                "batch_flush_duration": 0.1,
            }
            self.rig.sandbox.post("lytics/jobs", {"name": str(number), **way, **form})

    def move(self, rng):
        moves = [
            {"uid": f"u{rng.randrange(PEOPLE)}", "audience": audience, "change": change}
            for audience in AUDIENCES
            for change in ("enter", "enter", "exit")
            for _ in range(MOVES)
        ]
        self.rig.sandbox.post("lytics/moves", moves)

    def jobs(self):
        return self.rig.sandbox.get("lytics/jobs").values()

    def kill_receiver(self):
        kill_group(self.receiver)
        self.start_receiver()

    def kill_worker(self):
        kill_group(self.worker)
        self.worker = self.rig.start_worker(f"--concurrency={PROCESSES}", number=0)
        await_ready(self.rig, self.worker)

    def kill_redis(self):
        self.rig.kill_redis()
        self.rig.start_redis()

    def truth(self):
        """Return the audiences of each email, as Lytics has them."""
        held = {}
        for audience in AUDIENCES:
            for row in self.rig.sandbox.get("lytics/members", audience=audience):
                held.setdefault(row["email"], []).append(audience)
        return {email: sorted(audiences) for email, audiences in held.items()}


def test_what_lytics_was_answered_200_arrives_in_every_form_whatever_is_killed(tmp_path):
    rng, port = random.Random(5), free_port()
    with Rig(
        tmp_path,
        delivery_lines=SHORT,
        sandbox_settings=QUICK,
        more=RECEIVER.replace("PORT", str(port)),
    ) as rig:
        relay = Relay(rig, port)
        relay.begin()
        blows = [relay.kill_receiver, relay.kill_worker, relay.kill_redis]
        for blow in [*blows, *blows]:
            relay.move(rng)
            blow()
        relay.move(rng)
        until(lambda: all(job["sent"] == job["events"] for job in relay.jobs()), 90)
        until(lambda: not rig.waiting(), 60)

        assert rig.memberships() == relay.truth()
        status = status_of(rig)
        assert (status["dead"], status["quarantined"]) == (0, 0)
        assert all(job["omitted"] == 0 for job in relay.jobs())
        assert {code for job in relay.jobs() for code in job["by_status"]} <= {
            "200",
            "503",
            "no answer",
        }
        assert status["skipped_by_reason"]["duplicate"] > 0  # each was told in two forms
        assert sent_twice(rig) <= PROCESSES * 4  # drains under way in what was killed
