"""Lytics' webhooks on the whole system: every documented form, while everything is killed."""

import random

from segrelay.sandbox.people import AUDIENCES
from tests.journeys.play import SHORT, Rig, await_ready, sent_twice, start_worker, status_of
from tests.journeys.receiver import Receiver
from tests.nightly import amount
from tests.rig import kill_group
from tests.waiting import until

FORMS = (
    {},
    {"batch_requests": True, "batch_size": 20},
    {"batch_requests": True, "compressed": True},
    {"cloud_events": True},
    {"cloud_events": True, "batch_requests": True},
    {"include_segs": True},
)
PEOPLE = 200
MOVES = amount(15, nightly=30)
PROCESSES = 2
QUICK = {"lytics": {"webhook_retry_seconds": 0.2, "webhook_sleep_seconds": 0.5}}


class Relay:
    """A rig with a worker and a receiver, to which Lytics sends each audience in two forms."""

    def __init__(self, rig, receiver):
        self.rig, self.receiver = rig, receiver
        self.worker = start_worker(rig, f"--concurrency={PROCESSES}")
        self.process = receiver.start(rig)
        self.rng = random.Random(5)
        people = [{"_uid": f"u{n}", "email": f"p{n}@example.com"} for n in range(PEOPLE)]
        rig.sandbox.post("lytics/profiles", people)
        for number, form in enumerate(FORMS):
            secret = receiver.secrets[number % 2]
            in_url = number == 0
            url = f"{receiver.url}/v1/lytics"
            way = {
                "webhook_url": f"{url}?secret={secret}" if in_url else url,
                "headers": {} if in_url else {"X-Segrelay-Secret": secret},
                "segment_ids": [AUDIENCES[number % len(AUDIENCES)]],
                "batch_flush_duration": 0.1,
            }
            rig.sandbox.post("lytics/jobs", {"name": str(number), **way, **form})

    def move(self):
        moves = [
            {"uid": f"u{self.rng.randrange(PEOPLE)}", "audience": audience, "change": change}
            for audience in AUDIENCES
            for change in ("enter", "enter", "exit")
            for _ in range(MOVES)
        ]
        self.rig.sandbox.post("lytics/moves", moves)

    def jobs(self):
        return self.rig.sandbox.get("lytics/jobs").values()

    def kill_receiver(self):
        kill_group(self.process)
        self.process = self.receiver.start(self.rig)

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
    receiver = Receiver("the-new-secret", "the-old-secret")
    more = receiver.table()
    with Rig(tmp_path, delivery_lines=SHORT, sandbox_settings=QUICK, more=more) as rig:
        relay = Relay(rig, receiver)
        for blow in [relay.kill_receiver, relay.kill_worker, relay.kill_redis] * 2:
            relay.move()
            blow()
        relay.move()
        log = tmp_path / "serve.log"
        until(lambda: all(job["sent"] == job["events"] for job in relay.jobs()), 90, else_show=log)
        until(lambda: not rig.waiting(), 90, else_show=rig.worker_log(0))

        assert rig.memberships() == relay.truth()
        status = status_of(rig)
        assert (status["dead"], status["quarantined"]) == (0, 0)
        assert status["skipped_by_reason"]["duplicate"] > 0  # each was told in two forms
        assert all(job["omitted"] == 0 for job in relay.jobs())
        answers = {code for job in relay.jobs() for code in job["by_status"]}
        assert answers <= {"200", "503", "no answer"}
        ends_of_drains = 4  # of the worker twice, and of Redis twice
        assert sent_twice(rig) <= ends_of_drains * PROCESSES * rig.settings.delivery.in_flight
