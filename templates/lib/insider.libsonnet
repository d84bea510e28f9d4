// What templates for Insider share.
//
//   local insider = import "insider.libsonnet";
//   { users: [{ identifiers: insider.identifiers, events: insider.events }] }
//
// The functions take the name of a field of the profile. They give null for what is missing and for
// what they can't make right, and never fail; values.libsonnet has them for a value.
//
// Insider's own attributes need none of them: of what a template puts into `email`, `phone_number`,
// `age`, `birthday`, `gender`, `language`, `country`, `*_optin`, into identifiers and into events,
// segrelay makes what Insider takes, after rendering, and leaves out what is empty or can't be made
// right. Custom attributes and parameters of events reach Insider as the template yields them.
local event = import "lytemplates.libsonnet";
local values = import "values.libsonnet";

local id = values.text(event.get("_id"));
local email = values.text(event.get("email"));
local details = event.get("segment_events")[0];
local kind = details.event;
local slug = event.segSlug();

local inName = "abcdefghijklmnopqrstuvwxyz0123456789_";
local flagName(prefix, slug) = prefix + std.join("", [
  if std.member(inName, c) then c else "_"
  for c in std.stringChars(std.asciiLower(slug))
]);

{
  // text(field)
  //
  // The field's text without the space around it; a whole number as text.
  //
  //   > insider.text("city")    {"city": " Paris "}
  //   = "Paris"
  text(field):: values.text(event.get(field)),

  // number(field)
  //
  // A number, also where the profile has "12" or "-0.5".
  //
  //   > insider.number("score_recency")    {"score_recency": "81.5"}
  //   = 81.5
  //   > insider.number("score_recency")    {"score_recency": "high"}
  //   = null
  number(field)::
    local x = event.get(field);
    // Most fields are missing or numbers; a call would cost them more than all the rest.
    if std.isString(x) then values.number(x) else if std.isNumber(x) then x,

  // boolean(field)
  //
  // true or false, out of t, true, 1, yes, y, on and their contraries; null for everything else, so
  // that nothing is sent of what nobody stated. For custom attributes: Insider drops a "t" without
  // a word where a boolean is defined.
  //
  //   > insider.boolean("is_mobile")    {"is_mobile": "t"}
  //   = true
  //   > insider.boolean("is_mobile")    {"is_mobile": ""}
  //   = null
  boolean(field):: values.boolean(event.get(field)),

  // identifier(field)
  //
  // What can name one person: null for the values that many people share (empty, undefined,
  // anonymous, 0, 1, null). Insider would merge all who have one of these.
  //
  //   > insider.identifier("customer_id")    {"customer_id": 1007}
  //   = "1007"
  //   > insider.identifier("customer_id")    {"customer_id": "anonymous"}
  //   = null
  identifier(field):: values.identifier(event.get(field)),

  // phone(field, region=null)
  //
  // A phone number; one without a country code is of the region: two letters, e.g. the profile's
  // own country. Without a region it is of `phone_region` of segrelay.toml. The region stands in
  // front of what this yields; segrelay makes an E.164 number of it after rendering, because
  // Jsonnet knows no numbering plans, and leaves out a number that no country gives out.
  //
  //   > insider.phone("mobile", event.get("country"))    {"mobile": "0171 2345678", "country": "DE"}
  //   = "DE:0171 2345678"
  //   > insider.phone("mobile", "DE")    {"mobile": "+33612345678"}
  //   = "+33612345678"
  phone(field, region=null):: values.phone(event.get(field), region),

  // country(field)
  //
  // A country's code of two letters in capitals; a name stays a name. For Insider's own `country`
  // segrelay finds the code of a name after rendering.
  //
  //   > insider.country("billing_country")    {"billing_country": "de"}
  //   = "DE"
  country(field):: values.country(event.get(field)),

  // language(field)
  //
  // A language and its country as Insider writes them. To a language alone segrelay adds the
  // likeliest country after rendering, in Insider's own `language`.
  //
  //   > insider.language("locale")    {"locale": "en-gb"}
  //   = "en_GB"
  language(field):: values.language(event.get(field)),

  // time(field)
  //
  // A time in UTC that ends in Z, with at most six digits of fraction; of a date its midnight, of a
  // number the seconds since 1970. Insider takes no other time for an attribute that is a date.
  //
  //   > insider.time("last_order")    {"last_order": "2026-11-01T12:00:00.123456789+02:00"}
  //   = "2026-11-01T10:00:00.123456Z"
  //   > insider.time("last_order")    {"last_order": "yesterday"}
  //   = null
  time(field):: values.time(event.get(field)),

  // eventName(text)
  //
  // A text as a name that Insider takes for an event: lower case, and `_` for what it can't hold.
  //
  //   > insider.eventName("Entered: " + event.segSlug())
  //   = "entered__vip"
  eventName(text):: values.eventName(text),

  // omitEmpty(value)
  //
  // The value without what is empty in it: null, "", [] and {}. segrelay does this to every body
  // for Insider after rendering; a template needs it where it counts or compares what is left.
  //
  //   > insider.omitEmpty({ name: event.get("first_name"), tags: [""], visits: 0 })
  //   = {"visits": 0}
  omitEmpty(value):: values.omitEmpty(value),

  // identifiers
  //
  // Who is meant: the email address, and Lytics' `_id` as `lytics_id`. One rule for all templates;
  // with two, an exit would miss the person who entered. The payload's own id names the same
  // profile and is taken only where nothing else names it.
  //
  //   > insider.identifiers    {"email": "ann@example.com", "_id": "1007"}
  //   = {"email": "ann@example.com", "custom": {"lytics_id": "1007"}}
  //   > insider.identifiers    {"payload_id": "1007"}
  //   = {"email": null, "custom": {"lytics_id": "1007"}}
  identifiers: {
    email: email,
    custom: { lytics_id: if id == null && email == null then event.get("payload_id") else id },
  },

  // audienceAttribute
  //
  // The custom attribute that lists a person's audiences: the trigger's setting
  // `audience_attribute`. Append to it on enter and remove from it on exit; never overwrite it.
  //
  //   > { [insider.audienceAttribute]: [event.segSlug()] }
  //   = {"lytics_computed_attr": ["vip"]}
  audienceAttribute: event.jobConfGet("audience_attribute", "lytics_computed_attr"),

  // audienceFlag
  //
  // The boolean attribute of the event's own audience, for the model without a list: the trigger's
  // setting `audience_flag_prefix` and the slug in lower case, with `_` for what a name can't hold.
  // Send this one only: what a profile says of other audiences may be older than what Insider has.
  //
  //   > { [insider.audienceFlag]: event.isEnter() }
  //   = {"lytics_in_vip": true}
  audienceFlag: flagName(
    event.jobConfGet("audience_flag_prefix", "lytics_in_"),
    if slug == null then "" else slug,
  ),

  // events
  //
  // The entry for Insider's event log, `lytics_trigger`; none for a `change`, which has no time.
  //
  //   > insider.events[0].event_params.custom.audience
  //   = "vip"
  events: if !(kind in details) then [] else [
    {
      event_name: "lytics_trigger",
      timestamp: details[kind],
      event_params: {
        custom: {
          id: if "id" in details then details.id,
          audience: if "slug" in details then details.slug,
          trigger: kind,
          origin: "Lytics",
        },
      },
    },
  ],
}
