// What the templates for Insider share.
//
// identifiers        who is meant: one rule for all, or an exit misses the person who entered
// audienceAttribute  the custom attribute that lists the audiences of a person
// hasTime            the event has a time; a `change` has none
// lyticsEvent        the entry for Insider's event log, if it has a time
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

local id = values.identifier(event.get("_id"));
local email = values.identifier(event.get("email"));
// The payload's own id names the same profile; it is taken only where nothing else names it.
local lyticsId =
  if id == null && email == null then values.identifier(event.get("payload_id")) else id;

local details = event.get("segment_events")[0];
local kind = details.event;

{
  identifiers: {
    [if email != null then "email"]: std.asciiLower(email),
    [if lyticsId != null then "custom"]: { lytics_id: lyticsId },
  },

  audienceAttribute: event.jobConfGet("audience_attribute", "lytics_computed_attr"),

  hasTime: kind in details,

  lyticsEvent: {
    event_name: "lytics_trigger",
    timestamp: values.microseconds(details[kind]),
    event_params: {
      custom: {
        [if "id" in details then "id"]: details.id,
        [if "slug" in details then "audience"]: details.slug,
        trigger: kind,
        origin: "Lytics",
      },
    },
  },
}
