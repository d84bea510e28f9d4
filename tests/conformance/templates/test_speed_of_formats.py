"""A format costs little: the page's template with one `%.1f` beside the one without."""

import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import orjson
import pytest

from segrelay.jsonnet.rendered import Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.checks.preview import sample_profile
from segrelay.worker.contract.words import Direction

PAGE = (Path(__file__).parent / "page_entrance.jsonnet").read_text()
PLAIN = '"age": event.get("age", ""),'
EVENTS = 1_000
GROUP = 50
NOW = datetime(2026, 11, 9, tzinfo=UTC)
MOST = 1.3
ROUNDS = 9


@pytest.mark.parametrize("value", ['"%.1f" % event.get("age", 0)', '"" + event.get("age", 0)'])
def test_the_page_with_a_fraction_in_a_text_costs_at_most_a_third_more(tmp_path, value):
    assert PAGE.count(PLAIN) == 1
    (tmp_path / "plain.jsonnet").write_text(PAGE)
    (tmp_path / "with.jsonnet").write_text(PAGE.replace(PLAIN, f'"age": {value},'))
    profile = {**sample_profile(Direction.ENTER, NOW), "age": 34.1}
    rows = [Row(orjson.dumps(profile))] * EVENTS
    renderer = Renderer(tmp_path, LYTEMPLATES)
    plain, with_format = (renderer.load(name) for name in ("plain.jsonnet", "with.jsonnet"))

    def seconds(template):
        begun = time.process_time()
        for first in range(0, EVENTS, GROUP):
            renderer.render(template, rows[first : first + GROUP])
        return time.process_time() - begun

    seconds(plain), seconds(with_format)  # the first event of each is compared with the engine
    rounds = [(seconds(with_format), seconds(plain)) for _ in range(ROUNDS)]

    assert median(more / less for more, less in rounds) <= MOST
    assert renderer.engine_use["with.jsonnet"] == {"": EVENTS}
