"""A mended trigger: what was refused before goes at once, and nothing repeats the old answer."""

import time

import orjson

from tests.journeys.judging import entrances, glimpsed, ill_of
from tests.journeys.play import SHORT, Rig, send, start_worker, stop_worker
from tests.waiting import allowed, until

ENTER = "insider/enter.jsonnet"
WAITS_MS = 250_000
"""The wait after some nine refusals; staging them would take as long."""
MENDED_SECONDS = allowed(10)


def template(attribute):
    return f"""
local event = import "lytemplates.libsonnet";
{{ users: [{{
  identifiers: {{ email: event.get("email") }},
  attributes: {{ custom: {{ lytics_computed_attr: [event.segSlug()], {attribute}: "x" }} }},
}}] }}
"""


REFUSING = {
    "failures": [{"status": 400, "contains": "wrong"}],
    "panel_attributes": {"lytics_computed_attr": "array", "wrong": "string", "right": "string"},
}


def put_off(rig):
    """Let the deliveries of all partitions wait as after many refusals; return how many do."""
    number = 0
    for key in rig.client.scan_iter("*}aside"):
        for position, text in rig.client.hgetall(key).items():
            backoff = orjson.loads(text)
            number += backoff[3] > time.time() * 1_000 + WAITS_MS / 2
            backoff[3] = int(time.time() * 1_000) + WAITS_MS
            rig.client.hset(key, position, orjson.dumps(backoff))
    for key in rig.client.scan_iter("*}holds"):
        for stream, text in rig.client.hgetall(key).items():
            last_id, _, edition = text.decode().split()
            until_ms = int(time.time() * 1_000) + WAITS_MS
            rig.client.hset(key, stream, f"{last_id} {until_ms} {edition}")
    return number


def refused_for_minutes(rig):
    send(rig, entrances(3))
    refused = ill_of(rig, "trigger_refused")
    until(lambda: put_off(rig) == 3, 60)
    time.sleep(2)
    until(lambda: put_off(rig) == 3, 60)
    return refused


def test_what_an_older_template_made_wait_goes_with_the_mended_one(tmp_path):
    with Rig(
        tmp_path,
        delivery_lines=SHORT,
        templates={ENTER: template("wrong")},
        sandbox_settings=REFUSING,
    ) as rig:
        start_worker(rig)
        begun = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        refused = refused_for_minutes(rig)
        assert begun <= refused["since"] <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())

        (rig.settings.templates_folder / ENTER).write_text(template("right"))

        rig.wait_until_empty(MENDED_SECONDS)
        assert glimpsed(rig, attention=True).isdisjoint({"trigger_refused", "trigger_waits"})


def test_what_an_older_configuration_made_wait_goes_with_the_newer_one(tmp_path):
    setting = 'settings = { audience_attribute = "wrong" }'
    text = (
        'local event = import "lytemplates.libsonnet";\n'
        '{ users: [{ identifiers: { email: event.get("email") }, attributes: { custom: {'
        ' [event.jobConfGet("audience_attribute")]: [event.segSlug()] } } }] }'
    )
    panel = {"lytics_computed_attr": "array", "wrong": "array", "right": "array"}
    with Rig(
        tmp_path,
        delivery_lines=SHORT,
        templates={ENTER: text},
        sandbox_settings={**REFUSING, "panel_attributes": panel},
        enter_lines=setting,
    ) as rig:
        worker = start_worker(rig)
        refused_for_minutes(rig)
        stop_worker(worker)
        rig.workers.remove(worker)

        source = rig.settings.source
        source.write_text(source.read_text().replace('"wrong"', '"right"'))
        start_worker(rig)

        rig.wait_until_empty(MENDED_SECONDS)
