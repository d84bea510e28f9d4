"""`segrelay template diff` over what Redis holds: what waits, what is dead."""

import orjson

from tests.integration.ops.relay import payload

CHANGED = """
local event = import "lytemplates.libsonnet";
{ users: [{
  identifiers: { email: event.get("email") },
  attributes: { name: "New" },
}] }
"""
FAILING = """
local event = import "lytemplates.libsonnet";
if event.get("email") == "dead@example.com" then error "no" else (import "changed.jsonnet")
"""


def test_what_redis_holds_is_rendered_with_both(relay, call):
    relay.template("changed.jsonnet", CHANGED)
    relay.template("enter.jsonnet", FAILING)
    relay.deliver(payload("dead@example.com"))
    assert relay.status()["dead"] == 1
    relay.publish(payload("ann@example.com"), payload("ben@example.com"))
    relay.template("old.jsonnet", CHANGED.replace("New", "Old"))
    diff = ("template", "diff", "old", "changed", "--trigger", "vip-enter", "--json")
    for options, events in (
        (("--waiting",), 2),
        (("--letters",), 1),
        (("--waiting", "--letters"), 3),
    ):
        result = call(*diff, *options)

        assert result.exit_code == 0, result.output
        assert "Old" not in result.stdout
        assert orjson.loads(result.stdout)["events"] == events, options
