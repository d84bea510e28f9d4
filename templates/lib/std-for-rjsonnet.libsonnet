// The standard library with what rjsonnet lacks. Shadows `std` in files that name one of these.
std {
  pi:: 3.141592653589793,
  trim(str):: std.stripChars(str, " \t\n\f\r\u0085\u00A0"),
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
