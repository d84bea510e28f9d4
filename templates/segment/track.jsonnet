// An event for Segment's /v1/batch: somebody entered an audience or left it.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

local details = event.get("segment_events")[0];
local kind = details.event;
local at = if kind in details then details[kind];
local person = values.text(event.get("email", event.get("_id")));

assert person != null : "neither an email nor an id";

values.omitEmpty({
  type: "track",
  userId: person,
  event: if event.isExit() then "Audience Exited" else "Audience Entered",
  timestamp: values.time(at),
  messageId: event.sha256("%s|%s|%s|%s" % [person, event.segSlug(), kind, at]),
  properties: { audience_key: event.segSlug(), audience_id: event.idForEvent(details) },
  context: {
    traits: {
      email: event.get("email"),
      first_name: event.get("first_name"),
      last_name: event.get("last_name"),
    },
  },
})
