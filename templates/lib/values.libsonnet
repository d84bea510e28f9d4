// Values as receivers want them, out of values as profiles have them.
//
//   local values = import "values.libsonnet";
//   { country: values.country(event.get("visit_country")) }
//
// Every function gives null for what it can't make right, and for what is missing. It never fails.
// insider.libsonnet has the same functions for a field of the profile, by its name.
local blank = " \t\n\f\r\u00A0";
local digits = "0123456789";
local letters = "abcdefghijklmnopqrstuvwxyz";
local blocked = ["", "undefined", "anonymous", "0", "1", "null"];
local yes = ["t", "true", "1", "yes", "y", "on"];
local no = ["f", "false", "0", "no", "n", "off"];

local isEvery(text, allowed) =
  text != "" && std.all([std.member(allowed, c) for c in std.stringChars(text)]);
local isDigits(text) = std.length(text) < 16 && isEvery(text, digits);
local isLetters(text) = isEvery(std.asciiLower(text), letters);

local text(value) =
  if value == null then null
  else if std.isString(value) then
    local trimmed = std.stripChars(value, blank);
    if trimmed == "" then null else trimmed
  else if std.isNumber(value) && std.floor(value) == value && std.abs(value) < 9007199254740992
  then "%d" % value
  else null;

local lower(value) =
  local given = text(value);
  if given == null then null else std.asciiLower(given);

local isEmpty(value) =
  value == null || value == "" || value == [] || value == {};

local omitEmpty(value) =
  if std.isObject(value) then
    local kept = { [key]: omitEmpty(value[key]) for key in std.objectFields(value) };
    { [key]: kept[key] for key in std.objectFields(kept) if !isEmpty(kept[key]) }
  else if std.isArray(value) then
    [kept for kept in [omitEmpty(each) for each in value] if !isEmpty(kept)]
  else value;

local unsigned(given) =
  local parts = std.split(given, ".");
  if std.length(parts) > 2 || !std.all([isDigits(part) for part in parts]) then null
  else if std.length(parts) == 1 then std.parseInt(parts[0])
  else std.parseJson("%d.%s" % [std.parseInt(parts[0]), parts[1]]);

local number(value) =
  if value == null || std.isNumber(value) then value
  else
    local given = text(value);
    if given == null then null
    else if !std.startsWith(given, "-") then unsigned(given)
    else
      local size = unsigned(given[1:]);
      if size == null then null else -size;

// The date of so many days after 1970-01-01, and the contrary; the year begins in March, so that
// the leap day is the last one.
local daysOf(year, month, day) =
  local y = if month > 2 then year else year - 1;
  local m = if month > 2 then month - 3 else month + 9;
  365 * y + std.floor(y / 4) - std.floor(y / 100) + std.floor(y / 400)
  + std.floor((153 * m + 2) / 5) + day - 719469;
local dateOf(days) =
  local z = days + 719468;
  local era = std.floor(z / 146097);
  local doe = z - era * 146097;
  local yoe = std.floor(
    (doe - std.floor(doe / 1460) + std.floor(doe / 36524) - std.floor(doe / 146096)) / 365
  );
  local doy = doe - (365 * yoe + std.floor(yoe / 4) - std.floor(yoe / 100));
  local m = std.floor((5 * doy + 2) / 153);
  local month = if m < 10 then m + 3 else m - 9;
  local year = yoe + era * 400 + (if month > 2 then 0 else 1);
  [year, month, doy - std.floor((153 * m + 2) / 5) + 1];

local utc(seconds, fraction) =
  local days = std.floor(seconds / 86400);
  local rest = seconds - days * 86400;
  local date = dateOf(days);
  local hours = std.floor(rest / 3600);
  local minutes = std.floor((rest - hours * 3600) / 60);
  "%04d-%02d-%02dT%02d:%02d:%02d%sZ" % [
    date[0],
    date[1],
    date[2],
    hours,
    minutes,
    rest - hours * 3600 - minutes * 60,
    fraction,
  ];

local numberAt(given, start, length) =
  local part = given[start:start + length];
  if std.length(part) == length && isDigits(part) then std.parseInt(part) else null;
local charAt(given, position) = given[position:position + 1];

// Seconds that an offset lies ahead of UTC ("Z", "+02:00", "+0200", ""); null for another text.
local offsetOf(written) =
  if written == "" || written == "Z" || written == "z" then 0
  else
    local sign = if charAt(written, 0) == "-" then -1 else 1;
    local digitsOnly = std.strReplace(written[1:], ":", "");
    local hours = numberAt(digitsOnly, 0, 2);
    local minutes = numberAt(digitsOnly, 2, 2);
    if !std.member(["+", "-"], charAt(written, 0)) || std.length(digitsOnly) != 4
       || hours == null || minutes == null || hours > 23 || minutes > 59
    then null
    else sign * (hours * 3600 + minutes * 60);

// How many of the characters from a position on are digits.
local digitsFrom(given, start) =
  local stops = [
    i
    for i in std.range(start, std.length(given) - 1)
    if !std.member(digits, given[i])
  ];
  (if std.length(stops) == 0 then std.length(given) else stops[0]) - start;

local isDate(year, month, day) =
  year != null && month != null && day != null && month >= 1 && month <= 12 && day >= 1
  && dateOf(daysOf(year, month, day)) == [year, month, day];

local timeOf(given) =
  local year = numberAt(given, 0, 4);
  local month = numberAt(given, 5, 2);
  local day = numberAt(given, 8, 2);
  if charAt(given, 4) != "-" || charAt(given, 7) != "-" || !isDate(year, month, day) then null
  else if std.length(given) == 10 then utc(daysOf(year, month, day) * 86400, "")
  else
    local hour = numberAt(given, 11, 2);
    local minute = numberAt(given, 14, 2);
    local second = numberAt(given, 17, 2);
    local hasFraction = charAt(given, 19) == "." && digitsFrom(given, 20) > 0;
    local fractionDigits = if hasFraction then digitsFrom(given, 20) else 0;
    local fraction = if hasFraction then given[19:20 + std.min(fractionDigits, 6)] else "";
    local offset = offsetOf(given[(if hasFraction then 20 + fractionDigits else 19):]);
    if !std.member(["T", "t", " "], charAt(given, 10)) || charAt(given, 13) != ":"
       || charAt(given, 16) != ":" || hour == null || minute == null || second == null
       || hour > 23 || minute > 59 || second > 59 || offset == null
    then null
    else
      utc(daysOf(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset, fraction);

// The functions of this library refer to one another as locals. With `self` in one of them, each use
// of the library would be looked up at run time, and an entrance would take a fifth longer to render.
local timeFrom(value) =
  if std.isNumber(value) then
    (if value >= -62135596800 && value < 253402300800 then utc(std.floor(value), ""))
  else
    local given = if std.isString(value) then text(value);
    if given == null then null else timeOf(given);

{
  // text(value)
  //
  // The text without the space around it; a whole number as text. null for blank text, and for
  // what is no text.
  //
  //   > values.text("  Ann ")
  //   = "Ann"
  //   > values.text(12)
  //   = "12"
  //   > values.text("   ")
  //   = null
  text:: text,

  // number(value)
  //
  // A number, also where it is written as text.
  //
  //   > values.number("-0.5")
  //   = -0.5
  //   > values.number("12 kg")
  //   = null
  number:: number,

  // boolean(value)
  //
  // true for t, true, 1, yes, y, on; false for f, false, 0, no, n, off, in any case. Everything
  // else is null: never send a consent that nobody stated.
  //
  //   > values.boolean("t")
  //   = true
  //   > values.boolean("No")
  //   = false
  //   > values.boolean("")
  //   = null
  boolean(value)::
    if std.isBoolean(value) then value
    else if std.member(yes, lower(value)) then true
    else if std.member(no, lower(value)) then false,

  // identifier(value)
  //
  // Text that can name one person: not one of the values that many people share (empty, undefined,
  // anonymous, 0, 1, null), which would make them one person at the receiver.
  //
  //   > values.identifier(" 1007 ")
  //   = "1007"
  //   > values.identifier("undefined")
  //   = null
  identifier(value)::
    local given = text(value);
    if given == null || std.member(blocked, std.asciiLower(given)) then null else given,

  // phone(value, region=null)
  //
  // A phone number for Insider. One without a country code is of the region: two letters, e.g. of
  // the profile's own country. Without a region it is of `phone_region` of segrelay.toml.
  //
  // Jsonnet knows no numbering plans: what stands here is the number with its region in front.
  // segrelay makes an E.164 number of it after rendering, and leaves out what no country gives out.
  // For an http destination nothing does that.
  //
  //   > values.phone("0171 2345678", "de")
  //   = "DE:0171 2345678"
  //   > values.phone("+49 171 2345678", "US")
  //   = "+49 171 2345678"
  phone(value, region=null)::
    local given = text(value);
    local where = text(region);
    if given == null then null
    else if std.startsWith(given, "+") || std.startsWith(given, "00") || where == null
            || std.length(where) != 2 || !isLetters(where)
    then given
    else std.asciiUpper(where) + ":" + given,

  // country(value)
  //
  // A code of two letters in capitals. Another text stays what it is: Insider's `country` may hold
  // a name ("Germany") or a code of three letters, which segrelay makes a code of two after
  // rendering. For an http destination, or a custom attribute, nothing does that.
  //
  //   > values.country("us")
  //   = "US"
  //   > values.country("Germany")
  //   = "Germany"
  country(value)::
    local given = text(value);
    if given != null && std.length(given) == 2 && isLetters(given)
    then std.asciiUpper(given)
    else given,

  // language(value)
  //
  // A language and its country in the form en_US. Another text stays what it is: to Insider's
  // `language` segrelay adds the likeliest country after rendering ("en", "English").
  //
  //   > values.language("pt-br")
  //   = "pt_BR"
  //   > values.language("en")
  //   = "en"
  language(value)::
    local given = text(value);
    local parts = if given == null then [] else std.split(std.strReplace(given, "-", "_"), "_");
    if std.length(parts) == 2 && std.all([std.length(p) == 2 && isLetters(p) for p in parts])
    then std.asciiLower(parts[0]) + "_" + std.asciiUpper(parts[1])
    else given,

  // time(value)
  //
  // A time as RFC 3339 in UTC, ending in Z, with at most six digits of fraction; without an offset
  // it counts as UTC. A date is its midnight; a number is seconds since 1970. null for everything
  // that is no time.
  //
  //   > values.time("2026-11-01T12:00:00.872199615+02:00")
  //   = "2026-11-01T10:00:00.872199Z"
  //   > values.time("2026-11-01")
  //   = "2026-11-01T00:00:00Z"
  //   > values.time(1793527200)
  //   = "2026-11-01T10:00:00Z"
  //   > values.time("2026-02-30")
  //   = null
  time(value):: timeFrom(value),

  // unixTime(value)
  //
  // The whole seconds since 1970 of what `time` takes; null for everything that is no time.
  //
  //   > values.unixTime("2026-11-01T12:00:00.872199615+02:00")
  //   = 1793527200
  //   > values.unixTime("soon")
  //   = null
  unixTime(value)::
    local at = timeFrom(value);
    if at != null then
      daysOf(numberAt(at, 0, 4), numberAt(at, 5, 2), numberAt(at, 8, 2)) * 86400
      + numberAt(at, 11, 2) * 3600 + numberAt(at, 14, 2) * 60 + numberAt(at, 17, 2),

  // pathPart(value)
  //
  // A text as a part of a URL's path or as a value in its query: everything but letters, digits and
  // `-._~` is percent-encoded. null for blank text, and for what is no text.
  //
  //   > values.pathPart("ann+shop@example.com")
  //   = "ann%2Bshop%40example.com"
  //   > values.pathPart("a/\u00e4")
  //   = "a%2F%C3%A4"
  pathPart(value)::
    local given = text(value);
    local hex = "0123456789ABCDEF";
    local plain = digits + letters + std.asciiUpper(letters) + "-._~";
    if given != null then
      std.join("", [
        if byte < 128 && std.member(plain, std.char(byte)) then std.char(byte)
        else "%" + hex[std.floor(byte / 16)] + hex[byte - 16 * std.floor(byte / 16)]
        for byte in std.encodeUTF8(given)
      ]),

  // eventName(value)
  //
  // A name that Insider takes for an event: lower case; letters, digits, `.`, `_` and `-`; anything
  // else becomes `_`.
  //
  //   > values.eventName("Audience Entered!")
  //   = "audience_entered_"
  //   > values.eventName("__x")
  //   = "x"
  eventName(value)::
    local given = lower(value);
    local written = if given == null then "" else std.lstripChars(
      std.join("", [
        if std.member(digits + letters + "._-", c) then c else "_"
        for c in std.stringChars(given)
      ]),
      "._-",
    );
    if written == "" then null else written,

  // omitEmpty(value)
  //
  // An object or list without what is empty in it, at any depth: null, "", [] and {}, and what holds
  // only such things. 0 and false are values. For Insider segrelay does this after rendering.
  //
  //   > values.omitEmpty({ a: "", b: [""], c: { d: null }, e: 0, f: false })
  //   = {"e": 0, "f": false}
  omitEmpty:: omitEmpty,
}
