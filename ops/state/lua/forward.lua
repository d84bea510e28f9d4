#!lua flags=allow-oom
-- Changes the record of a person who is renamed, if it is as it was found; members that syncs know go, and their marks are kept.
--
-- KEYS[1] forwards  [2] lease  [3..] per sync its members
-- ARGV[1] digest (hex)  [2] the record as it was found ("" = none)  [3] the record from now on ("" = none)  [4] the profile's key
--     [5] how many people had arrived in this partition before the record was looked at ("" = any number)  [6..] names of the syncs
--
-- A record that was there and has gone again is found as if it had never been: the number tells it.
-- Returns 1, or 0 if the record is another one by now, or somebody has arrived.
--@include _members

local found = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if found ~= ARGV[2] then return 0 end
if ARGV[5] ~= '' and (redis.call('HGET', KEYS[2], 'arrived') or '0') ~= ARGV[5] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
for i = 6, #ARGV do
  local roll = open_members(KEYS[i - 3], {ARGV[4]})
  local mark = member_mark(roll, ARGV[4])
  if mark then
    redis.call('HSET', KEYS[1], ARGV[1] .. '|' .. ARGV[i], mark)
    set_member(roll, ARGV[4], false)
    close_members(roll)
  end
end
return 1
