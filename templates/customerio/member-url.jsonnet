// The URL of one member of a segment, for an API that takes PUT and DELETE of it.
//
// settings: segment is the segment's id; without it, the slug of the audience stands there.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

assert event.has("email") : "no email";

local segment = values.text(event.jobConfGet("segment"));

"/api/v1/segments/%s/members/%s" % [
  values.pathPart(if segment != null then segment else event.segSlug()),
  values.pathPart(event.get("email")),
]
