// The functions of lytemplates.libsonnet, in two steps: what is the same for every event of a
// trigger is built once, because building an object is what costs.
//
// Arguments:
//   settings  the trigger's settings: an object
// then:
//   row       the profile: an object, with exactly one entry in segment_events
//   more      null, or function(field) -> JSON text of a field that row was cut by, or null
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
    // The trigger's settings.
    jobConfGet:: jobConfGet,
    validatedEnum(field, enumOptions, default):: enum(jobConfGet(field), enumOptions, default),

    // Any segment event.
    segEvIsEnter(ev):: valueOf(ev, "event") == "enter",
    segEvIsExit(ev):: valueOf(ev, "event") == "exit",
    slugForEvent(ev):: valueOf(ev, "slug"),
    idForEvent(ev):: valueOf(ev, "id"),

    // Values.
    enum:: enum,
    notNull(val, def):: if val == null then def else val,
    sha1(obj):: hashed("sha1", obj),
    sha256(obj):: hashed("sha256", obj),
    isValidSha1(obj):: isHex(obj, 40),
    isValidSha256(obj):: isHex(obj, 64),
  };

  function(row, more)
    local get(field, def=null) =
      if field in row then row[field]
      else if more == null then def
      else
        local text = more(field);
        if text == null then def else std.parseJson(text);
    local has(field) = field in row || (more != null && more(field) != null);

    local events = get("segment_events");
    local trigger = if std.isArray(events) && std.length(events) > 0 then events[0] else null;

    unchanging {
      // The profile. Without obj, `has` asks it; the default is a mark, because obj may be null.
      has(field, obj=has)::
        if std.isFunction(obj) then has(field) else std.isObject(obj) && field in obj,
      get:: get,
      profileFieldFromConfig(configField, def=null)::
        if configField in settings then get(settings[configField]) else def,
      inSeg(id)::
        (valueOf(trigger, "event") != "exit"
         && (valueOf(trigger, "id") == id || valueOf(trigger, "slug") == id))
        || isMember(get("_segments"), id)
        || isMember(get("segments_all"), id)
        || isMember(get("segments"), id),

      // The event.
      isEnter():: valueOf(trigger, "event") == "enter",
      isExit():: valueOf(trigger, "event") == "exit",
      segSlug():: valueOf(trigger, "slug"),
    }
