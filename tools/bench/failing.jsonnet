// The page's entrance in small, behind ten ways in which an event may fail: the field `way` of its
// profile says which; without it the event renders. The tenth is an assert, which skips.
local event = import "lytemplates.libsonnet";
local way = event.get("way", 0);
assert way != 10 : "not wanted";

local fail = [
  function() event.get("none").field,
  function() event.get("lytics_content").nope,
  function() event.get("_segments")[7],
  function() std.parseInt(event.get("first_name")),
  function() error "this one is wrong",
  function() event.get("first_name") - 1,
  function() 1 / (event.get("score_frequency") - 12),
  function() std.length(event.get("score_frequency")),
  function() std.join(",", event.get("score_frequency")),
];

if way > 0 then fail[way - 1]() else {
  users: [{
    identifiers: { email: event.get("email", ""), custom: { lytics_id: event.get("_id", "") } },
    attributes: {
      [name]: event.get(name, "")
      for name in ["email", "phone", "first_name", "last_name", "gender", "age", "user_language",
                   "visit_country", "visit_city", "consent_email_status", "consent_gdpr_status"]
    } + { custom: {
      lytics_computed_attr: [event.segSlug()],
      status: event.get("status", ""),
      score_frequency: event.get("score_frequency", ""),
      score_recency: event.get("score_recency", ""),
    } },
  }],
}
