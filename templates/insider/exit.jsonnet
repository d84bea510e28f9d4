// An exit, for POST /api/user/v1/attribute/delete: takes the slug of the audience that was left out
// of the person's list. (exit-event.jsonnet sends the event, as a second trigger.)
//
// Settings: audience_attribute, the custom attribute that lists the audiences of a person.
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

{
  users: [
    {
      identifiers: insider.identifiers,
      [if event.isExit() then "custom"]: {
        partial: { [insider.audienceAttribute]: [event.segSlug()] },
      },
    },
  ],
}
