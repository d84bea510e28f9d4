// What a profile becomes. This is JavaScript: a function `template`, which takes the profile and
// returns the body of a request to a destination with api = "http". docs/templates.md lists the
// helpers, such as `get` and `sha256`.
//
// `segrelay template render {name} samples/enter.json` shows what comes out.
function template(data) {
  // Nothing returned: the event is skipped, and counts as skipped.
  if (!data.email) return null;

  return {
    // "enter" or "exit", and the slug of the audience.
    type: isEnter(data) ? "entered" : "left",
    audience: segSlug(data),
    email: data.email,
    // What the profile does not have is undefined, and is left out.
    name: data.first_name,
    status: data.status || "unknown",
  };
}
