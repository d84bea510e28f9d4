// A message in a channel of Slack, by an incoming webhook. It names the audience, and the person by
// initials only: a channel has many readers.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

local initial(field) =
  local given = values.text(event.get(field));
  if given == null then "?" else given[0:1];

{
  text: "%s.%s. %s %s" % [
    initial("first_name"),
    initial("last_name"),
    if event.isExit() then "left" else "entered",
    event.segSlug(),
  ],
}
