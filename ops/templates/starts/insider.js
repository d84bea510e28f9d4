// What a profile becomes. This is JavaScript: a function `template`, which takes the profile and
// returns the body that is sent. docs/templates.md lists the helpers, such as `get` and `sha256`.
//
// `segrelay template render {name} samples/enter.json` shows what comes out.
function template(data) {
  // Nothing returned: the event is skipped, and counts as skipped.
  if (!data.email) return null;

  const custom = {
    // Yours, which have to be defined in Insider's panel.
    status: data.status || "unknown",
  };
  // The slug of the audience, put into the person's list on an entrance. A template for exits takes
  // it out, with `partial`.
  if (isEnter(data)) custom[jobConfGet("audience_attribute")] = [segSlug(data)];

  return {
    users: [
      {
        // Who is meant. Use the same identifiers in every template, or an exit misses the person.
        identifiers: { email: data.email, custom: { lytics_id: data._id } },
        // What the profile does not have is undefined, and is left out.
        attributes: { email: data.email, name: data.first_name, custom },
      },
    ],
  };
}
