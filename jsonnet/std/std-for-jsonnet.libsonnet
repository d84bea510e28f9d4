// The standard library with what the reference implementation leaves to go-jsonnet, or does in
// another way.
// Natives: sha1(text), sha256(text), sha3(text), sha512(text) -> hex digest.
local white = "\t\n\u000b\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
              + "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";
local separators(text) =
  std.strReplace(std.strReplace(text, "\u2028", "\\u2028"), "\u2029", "\\u2029");
(import "lib:/std-for-templates.libsonnet") {
  sha1(str):: std.native("sha1")(str),
  sha256(str):: std.native("sha256")(str),
  sha3(str):: std.native("sha3")(str),
  sha512(str):: std.native("sha512")(str),
  manifestJson(value):: separators(super.manifestJson(value)),
  manifestJsonMinified(value):: separators(super.manifestJsonMinified(value)),
  manifestJsonEx(value, indent, newline="\n", key_val_sep=": ")::
    separators(super.manifestJsonEx(value, indent, newline, key_val_sep)),
  trim(str):: std.stripChars(str, white),
}
