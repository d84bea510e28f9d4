"""People who change their address in mid-run, known by their stable ids: all follows them."""

import os
import random
import signal
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import orjson

from segrelay.ops.demo.rig import kill_group
from segrelay.ops.state.identity_changes import read_renamed_people
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract import keys
from tests.journeys.people.test_renamed_people import members_by_ledger, new, old
from tests.journeys.play import SHORT, Rig, start_worker, status_of
from tests.nightly import amount

PEOPLE, CHANGERS = amount(300, nightly=5_000), amount(60, nightly=1_000)
KILLS = 5
STOPPED_SECONDS = amount(12, nightly=20)
VIP, CART = "vip", "cart-abandoners"
BEGUN_AT = datetime.now(UTC) - timedelta(hours=5)


class Story:
    """What happens to people, and what has to be true at the end.

    Attributes:
        told: By person and audience: the newest event.
    """

    def __init__(self):
        self.rng = random.Random(11)
        self.second = 0
        self.told = {}

    def event(self, person, email, slug, direction="enter"):
        """Let something happen now; it is sent whenever the test likes."""
        self.second += 1
        moment = BEGUN_AT + timedelta(seconds=self.second)
        at = moment.isoformat().replace("+00:00", "Z")
        entry = {"id": slug * 2, "slug": slug, "event": direction, direction: at}
        self.told[person, slug] = direction
        return orjson.dumps({"_uid": f"u{person}", "email": email, "segment_events": [entry]})

    def truth(self):
        held = defaultdict(set)
        for (person, slug), direction in self.told.items():
            if direction == "enter":
                held[new(person) if person < CHANGERS else old(person)].add(slug)
        return {email: sorted(slugs) for email, slugs in held.items()}


def held_at(rig):
    return {email: sorted(slugs) for email, slugs in rig.memberships().items() if slugs}


def wave(story, number):
    """Return the events of a wave in the random order in which they are sent, and late ones."""
    sent, late = [], []
    for person in range(number, CHANGERS, KILLS):
        late.append(story.event(person, old(person), VIP, story.rng.choice(["enter", "exit"])))
        sent.append(story.event(person, new(person), CART))
        if story.rng.random() < 0.5:
            sent.append(story.event(person, new(person), VIP, "exit"))
    sent += [
        story.event(person, old(person), CART, story.rng.choice(["enter", "exit"]))
        for person in story.rng.sample(range(CHANGERS, PEOPLE), PEOPLE // 10)
    ]
    story.rng.shuffle(sent)
    return sent, late


def test_people_who_change_their_address_are_renamed_by_workers_that_are_killed(tmp_path):
    story = Story()
    with Rig(tmp_path, delivery_lines=SHORT, destination_lines='stable = "_uid"') as rig:
        publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
        publisher.publish([story.event(person, old(person), VIP) for person in range(PEOPLE)])
        worker = start_worker(rig)
        rig.wait_until_empty(120)
        late = []
        for number in range(KILLS):
            sent, later = wave(story, number)
            publisher.publish(sent)
            late += later
            time.sleep(story.rng.uniform(1.5, 4.0))
            kill_group(worker)
            worker = start_worker(rig)
        os.killpg(worker.pid, signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        os.killpg(worker.pid, signal.SIGCONT)
        story.rng.shuffle(late)
        publisher.publish(late)
        rig.wait_until_empty(240)

        assert held_at(rig) == story.truth()
        assert members_by_ledger(rig, map(old, range(CHANGERS))) == set()
        assert not set(rig.memberships()) & set(map(old, range(CHANGERS)))
        found = read_renamed_people(rig.client, rig.partitions(), ["insider"])["insider"]
        assert (found.renamed, found.refused, found.waiting) == (CHANGERS, 0, 0)
        assert status_of(rig)["dead"] == 0
        assert not rig.client.exists(keys.RENAMING)
