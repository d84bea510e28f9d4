// The whole request of up to 1,000 people: an envelope for customerio/member.jsonnet.
local event = import "lytemplates.libsonnet";

{ ids: [each.id for each in event.get("results", [])] }
