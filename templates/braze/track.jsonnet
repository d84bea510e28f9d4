// A person for Braze's /users/track: attributes, and the audience added to or removed from an array
// attribute. Entrances and exits share this template and their requests (75 people each).
//
// settings: audience_attribute names the array.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

assert event.has("email") : "no email";

local audience = event.segSlug();

values.omitEmpty({
  email: event.get("email"),
  first_name: event.get("first_name"),
  last_name: event.get("last_name"),
  phone: event.get("phone"),
  country: values.country(event.get("visit_country")),
  home_city: event.get("visit_city"),
}) + {
  [event.jobConfGet("audience_attribute")]:
    if event.isExit() then { remove: [audience] } else { add: [audience] },
}
