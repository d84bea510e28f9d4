// The functions of lytemplates.libsonnet, in two steps: what is the same for every event of a
// trigger is built once, because building an object is what costs.
//
// Arguments:
//   settings  the trigger's settings: an object
// then:
//   row       the profile: an object, with exactly one entry in segment_events
// Natives:    sha1(text), sha256(text) -> hex digest
// Result:     an object of hidden functions
local hashed(name, x) =
  if std.isString(x) || std.isNumber(x) || std.isBoolean(x)
  then std.native(name)(std.toString(x))
  else error "%s needs a string, got %s" % [name, std.type(x)];

local hexDigits = "0123456789abcdef";
local isHex(x, length) =
  std.isString(x) && std.length(x) == length
  && std.all([std.length(std.findSubstr(c, hexDigits)) == 1 for c in std.stringChars(x)]);

local enum(value, options, default) = if std.member(options, value) then value else default;

local valueOf(ev, key) = if std.isObject(ev) && key in ev then ev[key] else null;
local isMember(list, id) = std.isArray(list) && std.member(list, id);

function(settings)
  local jobConfGet(key, def=null) = if key in settings then settings[key] else def;

  local unchanging = {
    // jobConfGet(key, def=null)
    //
    // A value of the trigger's `settings`; `def` where the key is absent. A setting can't be null in
    // TOML.
    //
    //   > event.jobConfGet("size")    settings {"size": "big"}
    //   = "big"
    //   > event.jobConfGet("colour", "red")
    //   = "red"
    jobConfGet:: jobConfGet,

    // validatedEnum(field, enumOptions, default)
    //
    // The trigger's setting `field` if it is one of the options; `default` if it is another value or
    // absent.
    //
    //   > event.validatedEnum("size", ["big", "small"], "small")    settings {"size": "big"}
    //   = "big"
    //   > event.validatedEnum("size", ["big", "small"], "small")    settings {"size": "huge"}
    //   = "small"
    validatedEnum(field, enumOptions, default):: enum(jobConfGet(field), enumOptions, default),

    // segEvIsEnter(ev)
    //
    // Whether a segment event is an entrance. Our choice: false for everything that is no event.
    //
    //   > event.segEvIsEnter(event.get("segment_events")[0])
    //   = true
    //   > event.segEvIsEnter(null)
    //   = false
    segEvIsEnter(ev):: valueOf(ev, "event") == "enter",

    // segEvIsExit(ev)
    //
    // Whether a segment event is an exit. Our choice: false for everything that is no event.
    //
    //   > event.segEvIsExit({ event: "exit" })
    //   = true
    segEvIsExit(ev):: valueOf(ev, "event") == "exit",

    // slugForEvent(ev)
    //
    // The slug of a segment event. Our choice: null where it has none.
    //
    //   > event.slugForEvent(event.get("segment_events")[0])
    //   = "vip"
    //   > event.slugForEvent({})
    //   = null
    slugForEvent(ev):: valueOf(ev, "slug"),

    // idForEvent(ev)
    //
    // The audience's id of a segment event. Our choice: null where it has none.
    //
    //   > event.idForEvent(event.get("segment_events")[0])
    //   = "0123456789abcdef0123456789abcdef"
    idForEvent(ev):: valueOf(ev, "id"),

    // enum(value, options, default)
    //
    // The value if it is one of the options, else `default`.
    //
    //   > event.enum(event.get("status"), ["active", "lost"], "other")    {"status": "new"}
    //   = "other"
    enum:: enum,

    // notNull(val, def)
    //
    // The value, or `def` where it is null. Our choice: only null; "" and false are values.
    //
    //   > event.notNull(event.get("status"), "unknown")
    //   = "unknown"
    //   > event.notNull("", "unknown")
    //   = ""
    notNull(val, def):: if val == null then def else val,

    // sha1(obj)
    //
    // The SHA-1 digest as 40 lowercase hexadecimal digits; see sha256.
    //
    //   > event.sha1("test")
    //   = "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3"
    sha1(obj):: hashed("sha1", obj),

    // sha256(obj)
    //
    // The SHA-256 digest as 64 lowercase hexadecimal digits. Our choice: of the text exactly as it
    // is, so lower the case of an email address first; a number or boolean counts as its text; of
    // null, a list or an object it is an error, because a digest of a missing value would make all
    // who lack it one person.
    //
    //   > event.sha256("test@lytics.com")
    //   = "e43763399e5318f14cd7473c4902a6b319343d577ec8283898a5edf9dbc6d711"
    sha256(obj):: hashed("sha256", obj),

    // isValidSha1(obj)
    //
    // Whether it is a text of 40 lowercase hexadecimal digits.
    //
    //   > event.isValidSha1("a94a8fe5ccb19ba61c4c0873d391e987982fbbd3")
    //   = true
    isValidSha1(obj):: isHex(obj, 40),

    // isValidSha256(obj)
    //
    // Whether it is a text of 64 lowercase hexadecimal digits. Our choice: capitals are not valid,
    // and what is no text is false.
    //
    //   > event.isValidSha256("ABC")
    //   = false
    isValidSha256(obj):: isHex(obj, 64),
  };

  function(row)
    local get(field, def=null) = if field in row then row[field] else def;
    local has(field) = field in row;

    local events = get("segment_events");
    local trigger = if std.isArray(events) && std.length(events) > 0 then events[0] else null;

    unchanging {
      // has(field, obj=…)
      //
      // Whether the profile has the field, also where its value is null or empty. With a second
      // argument, whether that object has it; our choice: false where it is no object.
      //
      //   > event.has("email")    {"email": ""}
      //   = true
      //   > event.has("x", event.get("map"))    {"map": {"x": 1}}
      //   = true
      //   > event.has("x", null)
      //   = false
      has(field, obj=has)::
        if std.isFunction(obj) then has(field) else std.isObject(obj) && field in obj,

      // get(field, def=null)
      //
      // The field's value; `def` where the profile does not have the field. Our choice: a field that
      // is there and null stays null, and "" stays "" (see notNull).
      //
      //   > event.get("first_name", "you")    {"first_name": "Ann"}
      //   = "Ann"
      //   > event.get("first_name", "you")
      //   = "you"
      //   > event.get("first_name", "you")    {"first_name": null}
      //   = null
      get:: get,

      // profileFieldFromConfig(configField, def=null)
      //
      // The field of the profile that the trigger's setting names; `def` where that setting is
      // absent. Our choice: null where the setting names a field that the profile does not have.
      //
      //   > event.profileFieldFromConfig("key")    {"email": "a@b.c"}    settings {"key": "email"}
      //   = "a@b.c"
      //   > event.profileFieldFromConfig("key", "none")
      //   = "none"
      profileFieldFromConfig(configField, def=null)::
        if configField in settings then get(settings[configField]) else def,

      // inSeg(id)
      //
      // Whether the person is in the audience, by its slug or id: as the event says (an exit is not
      // in it any more), or as one of the profile's lists does (`_segments`, `segments_all`,
      // `segments`). Our choice: of an exited audience, a list that still has it counts.
      //
      //   > event.inSeg("vip")
      //   = true
      //   > event.inSeg("news")    {"_segments": ["news"]}
      //   = true
      //   > event.inSeg("lost")
      //   = false
      inSeg(id)::
        (valueOf(trigger, "event") != "exit"
         && (valueOf(trigger, "id") == id || valueOf(trigger, "slug") == id))
        || isMember(get("_segments"), id)
        || isMember(get("segments_all"), id)
        || isMember(get("segments"), id),

      // isEnter()
      //
      // Whether the event is an entrance. Each event that a template sees is one: a payload of
      // several comes as several.
      //
      //   > event.isEnter()
      //   = true
      isEnter():: valueOf(trigger, "event") == "enter",

      // isExit()
      //
      // Whether the event is an exit. Of a `change` both are false.
      //
      //   > event.isExit()
      //   = false
      isExit():: valueOf(trigger, "event") == "exit",

      // segSlug()
      //
      // The slug of the event's audience; null where the event has none.
      //
      //   > event.segSlug()
      //   = "vip"
      segSlug():: valueOf(trigger, "slug"),
    }
