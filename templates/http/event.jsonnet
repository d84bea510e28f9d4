// What happened to whom, for any endpoint that takes JSON (a destination with api = "http"). One
// template for entrances, exits and changes.
//
// The receiver can tell by `id` what it has seen already: the same event has the same id, however
// often it comes. It is made of the person, the audience, the kind of event and its time. A change
// has no time of its own, and therefore no id.
//
// What the profile does not have is left out. Add the fields that the receiver wants.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

local details = event.get("segment_events")[0];
local kind = details.event;
local at = values.time(if kind in details then details[kind]);
local person = values.text(event.get("email", event.get("_id", event.get("payload_id"))));

values.omitEmpty({
  id: if at != null then event.sha256("%s|%s|%s|%s" % [person, event.segSlug(), kind, at]),
  type: "audience." + kind,
  audience: { id: event.idForEvent(details), slug: event.segSlug() },
  occurred_at: at,
  person: {
    id: event.get("_id", event.get("payload_id")),
    email: event.get("email"),
    phone: event.get("phone"),
    first_name: event.get("first_name"),
    last_name: event.get("last_name"),
    city: event.get("visit_city"),
    country: values.country(event.get("visit_country")),
    language: values.language(event.get("user_language")),
    email_consent: values.boolean(event.get("consent_email_status")),
  },
})
