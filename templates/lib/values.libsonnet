// Values as Insider wants them; null where there is no such value.
//
// number(x)        a number, also from "12" or "-0.5"
// stated(x)        true or false, also from "t" and "f", "true" and "false"
// identifier(x)    a text that names somebody
// microseconds(x)  an RFC 3339 time with six digits of a second at most, in UTC, with Z
//
// A file of its own, without lytemplates.libsonnet: it is evaluated once, not for every event.

// Insider merges profiles that share an identifier; these are nobody's.
local nobody = ["", "undefined", "anonymous", "null", "none", "0", "1"];

local isDigits(x) =
  x != "" && std.length(x) < 16 && std.all([c >= "0" && c <= "9" for c in std.stringChars(x)]);

local parsed(x) =
  local sign = if std.startsWith(x, "-") then -1 else 1;
  local parts = std.split(if sign < 0 then x[1:] else x, ".");
  if std.length(parts) > 2 || !std.all([isDigits(part) for part in parts]) then null
  else if std.length(parts) == 1 then sign * std.parseInt(parts[0])
  else sign * std.parseJson("%d.%s" % [std.parseInt(parts[0]), parts[1]]);

// Days since 0000-03-01, and back: the years begin in March, so that leap days come last.
local daysOf(year, month, day) =
  local y = if month <= 2 then year - 1 else year;
  local fromMarch = month + (if month > 2 then -3 else 9);
  365 * y + std.floor(y / 4) - std.floor(y / 100) + std.floor(y / 400)
  + std.floor((153 * fromMarch + 2) / 5) + day - 1;

local dateOf(days) =
  local era = std.floor(days / 146097);
  local ofEra = days - era * 146097;
  local yearOfEra = std.floor(
    (ofEra - std.floor(ofEra / 1460) + std.floor(ofEra / 36524) - std.floor(ofEra / 146096)) / 365
  );
  local ofYear =
    ofEra - (365 * yearOfEra + std.floor(yearOfEra / 4) - std.floor(yearOfEra / 100));
  local fromMarch = std.floor((5 * ofYear + 2) / 153);
  local month = if fromMarch < 10 then fromMarch + 3 else fromMarch - 9;
  local year = yearOfEra + era * 400 + (if month <= 2 then 1 else 0);
  "%04d-%02d-%02d" % [year, month, ofYear - std.floor((153 * fromMarch + 2) / 5) + 1];

// "2026-11-01T12:00:00" at "+02:00" is "2026-11-01T10:00:00".
local inUtc(clock, offset) =
  local number(text, from) = std.parseInt(std.substr(text, from, 2));
  local east = (number(offset, 1) * 60 + number(offset, 4)) * (if offset[0] == "-" then -1 else 1);
  local day = daysOf(std.parseInt(clock[0:4]), number(clock, 5), number(clock, 8));
  local minutes = day * 1440 + number(clock, 11) * 60 + number(clock, 14) - east;
  local ofDay = minutes - std.floor(minutes / 1440) * 1440;
  "%sT%02d:%02d:%s" % [
    dateOf(std.floor(minutes / 1440)),
    std.floor(ofDay / 60),
    ofDay % 60,
    clock[17:19],
  ];

{
  number(x)::
    if std.isNumber(x) then x else if std.isString(x) then parsed(x) else null,

  stated(x)::
    if std.isBoolean(x) then x
    else if !std.isString(x) then null
    else if std.member(["t", "true"], std.asciiLower(x)) then true
    else if std.member(["f", "false"], std.asciiLower(x)) then false
    else null,

  identifier(x)::
    local text = if std.isNumber(x) then "" + x else x;
    if !std.isString(text) || std.member(nobody, std.asciiLower(text)) then null else text,

  // That it is a time was checked when the event was accepted.
  microseconds(x)::
    local zone = std.length(x) - (if std.member("Zz", x[std.length(x) - 1]) then 1 else 6);
    // Seconds end at 19; the point and six digits are seven more.
    local fraction = x[19:std.min(zone, 26)];
    if std.length(x) == zone + 1 then x[0:19] + fraction + "Z"
    else inUtc(x[0:19], x[zone:]) + fraction + "Z",
}
