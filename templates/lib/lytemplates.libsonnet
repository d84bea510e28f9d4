// The library that templates import: what Lytics documents for its webhook templates.
//
//   local event = import "lytemplates.libsonnet";
//   { email: event.get("email") }
//
// Natives: profile() -> JSON text of the profile, settings() -> JSON text of the trigger's settings.
// Result:  an object of functions; library.libsonnet lists them.
local settings = std.parseJson(std.native("settings")());
local profile = std.parseJson(std.native("profile")());

(import "library.libsonnet")(settings)(profile)
