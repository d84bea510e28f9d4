#!lua flags=allow-oom
-- Lets syncs know a person as a member under the identity that they arrive with; without a record from now on, what waits goes on.
--
-- KEYS[1] forwards  [2] lease  [3..] per mark the members of its sync
-- ARGV[1] digest (hex)  [2] the record as it was found  [3] the record from now on ("" = none)  [4] the profile's key  [5..] marks
--
-- With no record from now on, the arrival is counted: see `forward`.
-- Returns 1, or 0 if the record is another one by now.
--@include _members

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HINCRBY', KEYS[2], 'arrived', 1)
end
for i = 5, #ARGV do
  local roll = open_members(KEYS[i - 2], {ARGV[4]})
  if not member_mark(roll, ARGV[4]) then set_member(roll, ARGV[4], ARGV[i]) end
  close_members(roll)
end
return 1
