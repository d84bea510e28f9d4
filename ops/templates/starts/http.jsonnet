// What a profile becomes. This is Jsonnet (https://jsonnet.org): JSON with variables, conditions
// and functions. The value of the file is the body of a request to a destination with api = "http".
//
// `segrelay template render {name} samples/enter.json` shows what comes out.
local event = import "lytemplates.libsonnet";  // the profile, and what happened to it
local values = import "values.libsonnet";  // conversions, such as `boolean` and `time`

// An assert that fails skips the event; it counts as skipped, with this message.
assert event.has("email") : "no email";

// `omitEmpty` leaves out what the profile does not have.
values.omitEmpty({
  // "enter" or "exit", and the slug of the audience.
  type: if event.isEnter() then "entered" else "left",
  audience: event.segSlug(),
  email: event.get("email"),
  name: event.get("first_name"),
  // The second argument of `get` is what counts where the field is missing.
  status: event.get("status", "unknown"),
})
