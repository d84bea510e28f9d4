// An exit where each audience has a boolean attribute of its own, for POST /api/user/v1/upsert: the
// attribute set to false, and the event. Nothing is deleted, and one request says both.
//
// Settings: audience_flag_prefix, as in flag-enter.jsonnet.
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

{
  users: [
    {
      identifiers: insider.identifiers,
      [if event.isExit() then "attributes"]: { custom: { [insider.audienceFlag]: false } },
      events: insider.events,
    },
  ],
}
