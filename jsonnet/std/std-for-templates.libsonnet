// The standard library without what a template must not reach: our native functions, and the output
// of std.trace, which would put people into a worker's log. Shadows `std` in files that use it in any
// other way than by the name of another function.
std {
  native(x):: error "std.native is not defined: a template can't call native functions",
  trace(str, rest)::
    if std.isString(str) then rest
    else error "std.trace expected string, got " + std.type(str),
}
