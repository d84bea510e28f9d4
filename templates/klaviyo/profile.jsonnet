// A profile for Klaviyo's /api/profile-import, with the audience appended to a list or taken out.
//
// settings: audience_attribute names the list.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

assert event.has("email") : "no email";

// Klaviyo refuses a profile whose phone number is not in E.164.
local phone =
  local given = values.text(event.get("phone"));
  local left = "+0123456789";
  if given != null then std.join("", [c for c in std.stringChars(given) if std.member(left, c)]);
local isWhole = phone != null && std.startsWith(phone, "+") && std.length(phone) > 8
                && std.length(phone) < 17;

local list = event.jobConfGet("audience_attribute");
local change = if event.isExit() then "unappend" else "append";

{
  data: {
    type: "profile",
    attributes: values.omitEmpty({
      email: event.get("email"),
      phone_number: if isWhole then phone,
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
