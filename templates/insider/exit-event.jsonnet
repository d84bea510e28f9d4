// The event of an exit, for POST /api/user/v1/upsert: Insider's attribute/delete takes no events.
local insider = import "insider.libsonnet";

{ users: [{ identifiers: insider.identifiers, events: insider.events }] }
