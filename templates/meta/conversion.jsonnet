// An event for Meta's Conversions API. People are told by hashes only: each value is written in the
// way that Meta hashes it, so that both come to the same.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

local details = event.get("segment_events")[0];
local kind = details.event;
local at = if kind in details then details[kind];

local digits = "0123456789";
local lower(value) =
  local given = values.text(value);
  if given != null then std.asciiLower(given);
local onlyDigits(value) =
  local given = values.text(value);
  if given != null then std.join("", [c for c in std.stringChars(given) if std.member(digits, c)]);
local withoutSpaces(value) = if value != null then std.strReplace(value, " ", "");
local hashed(value) = if value != null && value != "" then [event.sha256(value)];

assert event.has("email") || event.has("phone") : "neither an email nor a phone number";

{
  event_name: if event.isExit() then "AudienceExited" else "AudienceEntered",
  event_time: values.unixTime(at),
  event_id: event.sha256("%s|%s|%s|%s" % [
    values.text(event.get("email", event.get("phone"))), event.segSlug(), kind, at,
  ]),
  action_source: "system_generated",
  user_data: values.omitEmpty({
    em: hashed(lower(event.get("email"))),
    ph: hashed(onlyDigits(event.get("phone"))),
    fn: hashed(lower(event.get("first_name"))),
    ln: hashed(lower(event.get("last_name"))),
    ct: hashed(withoutSpaces(lower(event.get("visit_city")))),
    country: hashed(lower(event.get("visit_country"))),
    external_id: hashed(values.text(event.get("_id"))),
  }),
  custom_data: { audience: event.segSlug() },
}
