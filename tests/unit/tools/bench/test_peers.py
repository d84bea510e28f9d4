"""The comparison with peers is fair: all correct users alike, and ratios are those within a run."""

import time
from random import Random

import orjson

from segrelay.jsonnet.rendered import Rendered, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.sandbox.people import happenings, payloads
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import sample_header
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import Shaped, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi
from tools.bench.peers.rendering import PAGE, PATH, corrected, phone

PEOPLE = 300


def test_a_peer_corrects_users_as_segrelay_does() -> None:
    invented = payloads(happenings(Random(1), events=PEOPLE, people=PEOPLE))
    profiles = [orjson.loads(payload)["data"] for payload in invented]
    entered = [one for one in profiles if "enter" in one["segment_events"][0]]
    rows = [Row(orjson.dumps(one | {"_segments": ["vip"]})) for one in entered]
    renderer = Renderer(PAGE.parent, LYTEMPLATES)
    now_us = time.time_ns() // 1_000
    header = sample_header("", Direction("enter"), now_us)
    rules = ShapingRules(PATH, "lytics_computed_attr", "US")

    results = list(renderer.render(renderer.load(PAGE.name), rows, "auto"))

    assert len(results) > PEOPLE / 3
    for found in results:
        assert isinstance(found, Rendered)
        shaped = InsiderApi().shape(orjson.loads(found.body), header, rules, now_us)
        assert isinstance(shaped, Shaped)
        [ours] = shaped.users
        theirs = corrected(orjson.loads(found.body)["users"][0], phone)
        assert theirs["attributes"] == ours["attributes"]
        assert theirs["identifiers"] == ours["identifiers"]
