// What a profile becomes. This is Jsonnet (https://jsonnet.org): JSON with variables, conditions
// and functions. The value of the file is the body that is sent.
//
// `segrelay template render {name} samples/enter.json` shows what comes out.
local event = import "lytemplates.libsonnet";  // the profile, and what happened to it
local insider = import "insider.libsonnet";  // what templates for Insider share

// An assert that fails skips the event; it counts as skipped, with this message.
assert event.has("email") : "no email";

{
  users: [
    {
      // Who is meant. Use the same identifiers in every template, or an exit misses the person.
      identifiers: insider.identifiers,
      attributes: {
        // Insider's own attributes. What the profile does not have is null, and is left out.
        email: event.get("email"),
        name: event.get("first_name"),
        custom: {
          // Yours, which have to be defined in Insider's panel. The second argument of `get` is
          // what counts where the field is missing.
          status: event.get("status", "unknown"),
          // The slug of the audience, put into the person's list on an entrance. A template for
          // exits takes it out: `segrelay template new NAME --from insider/exit`.
          [if event.isEnter() then insider.audienceAttribute]: [event.segSlug()],
        },
      },
    },
  ],
}
