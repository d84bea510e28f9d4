// The shipped exit for whoever evaluates one event at a time: the event comes as `event`.
local event = std.extVar("event");
local profile = event.data;

{
  users: [
    {
      identifiers: { email: profile.email, custom: { lytics_id: profile._id } },
      custom: { partial: { lytics_computed_attr: [profile.segment_events[0].slug] } },
    },
  ],
}
