// A profile for Klaviyo's /api/profile-import, with the audience appended to a list or taken out.
//
// settings: audience_attribute names the list.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

assert event.has("email") : "no email";

local list = event.jobConfGet("audience_attribute");
local change = if event.isExit() then "unappend" else "append";

{
  data: {
    type: "profile",
    attributes: values.omitEmpty({
      email: event.get("email"),
      phone_number: event.get("phone"),
      first_name: event.get("first_name"),
      last_name: event.get("last_name"),
      location: {
        city: event.get("visit_city"),
        country: values.country(event.get("visit_country")),
      },
      properties: { status: event.get("status") },
    }),
    meta: { patch_properties: { [change]: { [list]: event.segSlug() } } },
  },
}
