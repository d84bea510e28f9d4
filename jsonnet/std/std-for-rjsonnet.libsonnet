// The standard library with what rjsonnet lacks, and with what it does in another way than
// go-jsonnet and the reference implementation. Shadows `std` in files that name one of these.
local white = "\t\n\u000b\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
              + "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";
local elements(value) = if std.isString(value) then std.stringChars(value) else value;
local escaped(char) =
  if char < "\u007f" || char > "\u009f" then char else "\\u" + ("%04x" % std.codepoint(char));
local separators(text) =
  std.strReplace(std.strReplace(text, "\u2028", "\\u2028"), "\u2029", "\\u2029");
local bound(value, length, default) =
  if value == null then default else if value < 0 then std.max(0, length + value) else value;
(import "lib:/std-for-templates.libsonnet") {
  pi:: 3.141592653589793,
  trim(str):: std.stripChars(str, white),
  isOdd(x):: std.abs(x) % 2 == 1,
  mantissa(x):: if x == 0 then 0 else x / std.pow(2, std.exponent(x)),
  objectRemoveKey(obj, key):: if std.length(obj) == 0 then {} else super.objectRemoveKey(obj, key),
  escapeStringJson(str_)::
    std.join("", std.map(escaped, std.stringChars(super.escapeStringJson(std.toString(str_))))),
  manifestJson(value):: separators(super.manifestJson(value)),
  manifestJsonMinified(value):: separators(super.manifestJsonMinified(value)),
  manifestJsonEx(value, indent, newline="\n", key_val_sep=": ")::
    separators(super.manifestJsonEx(value, indent, newline, key_val_sep)),
  split(str, c)::
    if c == "" then error "std.split second parameter must have length 1 or greater, got 0"
    else super.split(str, c),
  splitLimit(str, c, maxsplits)::
    if c == "" then error "std.splitLimit second parameter should have length 1 or greater, got 0"
    else super.splitLimit(str, c, maxsplits),
  foldl(func, arr, init):: super.foldl(func, elements(arr), init),
  foldr(func, arr, init):: super.foldr(func, elements(arr), init),
  setInter(a, b, keyF=function(x) x):: super.setInter(elements(a), elements(b), keyF),
  setMember(x, arr, keyF=function(x) x):: super.setMember(x, elements(arr), keyF),
  uniq(arr, keyF=function(x) x):: super.uniq(elements(arr), keyF),
  escapeStringPython(str):: super.escapeStringPython(std.toString(str)),
  slice(indexable, index, end, step)::
    local length = std.length(indexable);
    super.slice(indexable, bound(index, length, 0), bound(end, length, length), step),
  isNull(v):: v == null,
  hypot(a, b):: std.sqrt(a * a + b * b),
  log2(x):: std.log(x) / std.log(2),
  log10(x):: std.log(x) / std.log(10),
  deg2rad(x):: x * self.pi / 180,
  rad2deg(x):: x * 180 / self.pi,
  atan2(y, x)::
    if x > 0 then std.atan(y / x)
    else if x < 0 then std.atan(y / x) + (if y < 0 then -self.pi else self.pi)
    else if y > 0 then self.pi / 2
    else if y < 0 then -self.pi / 2
    else 0,
  flattenDeepArray(value)::
    if std.isArray(value)
    then std.flatMap(function(each) self.flattenDeepArray(each), value)
    else [value],
}
