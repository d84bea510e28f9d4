// A person for an enrichment by Ansira. What Ansira answers goes back to Lytics by the trigger's
// response_stream. The fields are a beginning: agree on them with Ansira.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

assert event.has("email") : "no email";

values.omitEmpty({
  email: event.get("email"),
  phone: event.get("phone"),
  first_name: event.get("first_name"),
  last_name: event.get("last_name"),
  country: values.country(event.get("visit_country")),
  audience: event.segSlug(),
  trigger: event.get("segment_events")[0].event,
})
