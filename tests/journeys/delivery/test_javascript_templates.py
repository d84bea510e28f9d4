"""Templates in JavaScript at work: a worker delivers by them, and what runs away costs itself."""

import time
from pathlib import Path

from segrelay.ops.demo.rig import kill_group
from segrelay.sandbox.people import Happening, truth
from tests.journeys.play import SHORT, Rig, lines, send, start_worker, status_of, watched
from tests.waiting import until

PAGE = Path(__file__).parents[2] / "conformance/templates/page_entrance.js"
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


def template(mark):
    cases = "\n".join(f"    case 'person{n}@example.com': {harm};" for n, harm in HARM.items())
    return f"""
function template(data) {{
  switch (data.email) {{
{cases}
  }}
  const marks = [typeof mark === 'undefined' ? '{mark}' : mark];
  const digest = sha256(data.email);
  const custom = {{ lytics_computed_attr: [segSlug(data)], mark: marks, digest }};
  return {{ users: [{{ identifiers: {{ email: data.email }}, attributes: {{ custom }} }}] }};
}}
"""


def entrances(first):
    start_us = int(time.time() * 1_000_000) - 3_600_000_000
    return [
        Happening(f"person{n}@example.com", "vip", is_exit=False, time_us=start_us + n)
        for n in range(first, first + PEOPLE)
    ]


def use_javascript(rig):
    """Let the entrances be rendered by the template in JavaScript."""
    source = rig.settings.source
    source.write_text(source.read_text().replace("insider/enter.jsonnet", ENTER))


def panel():
    return {
        "panel_attributes": {"lytics_computed_attr": "array", "mark": "array", "digest": "string"}
    }


def test_a_worker_that_is_killed_delivers_by_a_template_in_javascript(tmp_path):
    happened = entrances(0)
    with (
        Rig(
            tmp_path,
            delivery_lines=SHORT,
            templates={ENTER: template("one")},
            sandbox_settings={"latency_seconds": 0.02, **panel()},
        ) as rig,
        watched(rig),
    ):
        use_javascript(rig)
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


def test_the_page_s_entrance_in_javascript_delivers_and_gives_way_to_another_version(tmp_path):
    with (
        Rig(tmp_path, templates={ENTER: PAGE.read_text()}, sandbox_settings=panel()) as rig,
        watched(rig),
    ):
        use_javascript(rig)
        first, second = entrances(0), entrances(PEOPLE)
        start_worker(rig)
        send(rig, lines(first))
        rig.wait_until_empty(120)
        assert rig.memberships() == truth(first)

        path, more = rig.settings.templates_folder / ENTER, iter(second)
        path.write_text("function template(data) { retrun 1 }")
        # A process looks at the folder before a drain, and once a second at most.
        until(lambda: send(rig, lines([next(more)])) and refusal(rig), 60)
        path.write_text(template("two"))
        until(lambda: send(rig, lines([next(more)])) and marked(rig), 60)
        send(rig, lines(list(more)))
        rig.wait_until_empty(120)

        assert rig.memberships() == truth(first + second)
        assert marked(rig) == {"two"}


def marked(rig):
    """Return the versions by which people were delivered."""
    marks = rig.sandbox.get("memberships", attribute="mark").values()
    return {mark for of_one in marks for mark in of_one}


def refusal(rig):
    """Say whether the status tells why the changed template is not used."""
    return "SyntaxError: expecting" in str(status_of(rig))
