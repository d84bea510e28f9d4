"""Templates in JavaScript at work: a worker delivers by them, and what runs away costs itself."""

import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.sandbox.people import Happening, truth
from tests.journeys.play import (
    AN_HOUR_AGO_US,
    SHORT,
    Rig,
    lines,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.waiting import until

ENTER = "insider/enter.js"
PEOPLE = 300
HARM = {
    17: "while (true) {}",
    42: "return data.none.of_it",
    99: "return null",
    150: "const a = []; while (true) a.push('x'.repeat(1e6) + a.length)",
    201: "throw new Error(data.email)",
    222: "Array.prototype.push = null; globalThis.mark = 'spilled'; return { users: NaN }",
}
SKIPPED = {99}


CASES = "\n".join(f"    case 'person{n}@example.com': {harm};" for n, harm in HARM.items())
TEMPLATE = f"""
function template(data) {{
  switch (data.email) {{
{CASES}
  }}
  const marks = [typeof mark === 'undefined' ? 'one' : mark];
  const digest = sha256(data.email);
  const custom = {{ lytics_computed_attr: [segSlug(data)], mark: marks, digest }};
  return {{ users: [{{ identifiers: {{ email: data.email }}, attributes: {{ custom }} }}] }};
}}
"""


PANEL = {"lytics_computed_attr": "array", "mark": "array", "digest": "string"}


@pytest.mark.nightly  # by day `unit/javascript`, and the commands
def test_a_worker_that_is_killed_delivers_by_a_template_in_javascript(tmp_path):
    happened = [
        Happening(f"person{n}@example.com", "vip", is_exit=False, time_us=AN_HOUR_AGO_US + n)
        for n in range(PEOPLE)
    ]
    with (
        Rig(
            tmp_path,
            delivery_lines=SHORT,
            templates={ENTER: TEMPLATE},
            sandbox_settings={"latency_seconds": 0.02, "panel_attributes": PANEL},
        ) as rig,
        watched(rig),
    ):
        source = rig.settings.source
        source.write_text(source.read_text().replace("insider/enter.jsonnet", ENTER))
        send(rig, lines(happened))
        worker = start_worker(rig)
        until(lambda: len(rig.memberships()) > PEOPLE / 10, 60)
        kill_group(worker)
        rig.start_worker(number=0)

        rig.wait_until_empty(150)

        status = status_of(rig)
        assert status["dead_by_reason"] == {"template_error": len(HARM.keys() - SKIPPED)}
        assert rig.memberships() == truth(e for n, e in enumerate(happened) if n not in HARM)
        assert marked(rig) == {"one"}
        told = rig.command("dlq", "list", "--json", "--limit", "100").stdout.decode()
        assert "insider/enter.js:5: TypeError: cannot read property" in told
        assert "it takes too much time" in told


def marked(rig):
    """Return the versions by which people were delivered."""
    marks = rig.sandbox.get("memberships", attribute="mark").values()
    return {mark for of_one in marks for mark in of_one}
