#!lua flags=no-writes
-- Looks people up among the members that a sync knows.
--
-- KEYS[1] the members
-- ARGV their keys
--
-- Returns the mark of each; false = they are no member.
--@include _members

local roll, marks = open_members(KEYS[1], ARGV), {}
for i, key in ipairs(ARGV) do marks[i] = member_mark(roll, key) or false end
return marks
