// An entrance that overwrites the list of audiences with what the profile says, which may be older
// than what was delivered: what is newer has to be corrected before it is sent.
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

{
  users: [
    {
      identifiers: insider.identifiers,
      attributes: {
        email: event.get("email"),
        name: event.get("first_name"),
        surname: event.get("last_name"),
        email_optin: event.get("consent_email_status"),
        custom: { [insider.audienceAttribute]: event.get("_segments", [""]) },
      },
      not_append: true,
      events: insider.events,
    },
  ],
}
