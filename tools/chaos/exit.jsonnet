// As the shipped exit, and takes the event's time out of a list in which it never was: so every
// event has a body of its own, and what is sent twice can be told.
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

{
  users: [
    {
      identifiers: insider.identifiers,
      custom: {
        partial: {
          [insider.audienceAttribute]: [event.segSlug()],
          lytics_content: [event.get("segment_events")[0].exit],
        },
      },
    },
  ],
}
