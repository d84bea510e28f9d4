// What the templates for Insider share.
//
// identifiers        who is meant: one rule for all, or an exit misses the person who entered
// audienceAttribute  the custom attribute that lists the audiences of a person
// number(field)      a number, also where the profile has "12" or "-0.5"; null where it is none
// events             the entry for Insider's event log; none for a `change`, which has no time
local event = import "lytemplates.libsonnet";

// null for "" too.
local given(x) = if x == "" then null else x;
local id = given(event.get("_id"));
local email = given(event.get("email"));
local details = event.get("segment_events")[0];
local kind = details.event;

local isDigits(x) =
  x != "" && std.length(x) < 16 && std.all([c >= "0" && c <= "9" for c in std.stringChars(x)]);

local parsed(x) =
  local sign = if std.startsWith(x, "-") then -1 else 1;
  local parts = std.split(if sign < 0 then x[1:] else x, ".");
  if std.length(parts) > 2 || !std.all([isDigits(part) for part in parts]) then null
  else if std.length(parts) == 1 then sign * std.parseInt(parts[0])
  else sign * std.parseJson("%d.%s" % [std.parseInt(parts[0]), parts[1]]);

{
  number(field)::
    local x = event.get(field);
    if std.isString(x) then parsed(x) else x,

  identifiers: {
    email: email,
    // The payload's own id names the same profile; it is taken only where nothing else names it.
    custom: { lytics_id: if id == null && email == null then event.get("payload_id") else id },
  },

  audienceAttribute: event.jobConfGet("audience_attribute", "lytics_computed_attr"),

  events: if !(kind in details) then [] else [
    {
      event_name: "lytics_trigger",
      timestamp: details[kind],
      event_params: {
        custom: {
          id: if "id" in details then details.id,
          audience: if "slug" in details then details.slug,
          trigger: kind,
          origin: "Lytics",
        },
      },
    },
  ],
}
