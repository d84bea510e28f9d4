#!lua
-- Takes members over from where an earlier version has written them.
--
-- KEYS[1] the members that the sync knows   KEYS[2] members of an earlier version   KEYS[3] lease
-- ARGV the fields of some of them
--
-- Returns 1; -1 if the number of partitions has changed, or is being changed: they could be copied from neither.
--@include _members
--@include _renumbered

if is_renumbered(KEYS[3]) then return -1 end
close_members(open_members(KEYS[1], KEYS[2], ARGV))
return 1
