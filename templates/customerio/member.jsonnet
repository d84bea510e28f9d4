// One person for a request that puts many into a segment of Customer.io's, or takes them out: the
// envelope customerio/ids.jsonnet makes the request of them.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

assert event.has("email") : "no email";

{ id: values.text(event.get("email")) }
