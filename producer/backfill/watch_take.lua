#!lua
-- Keeps versions of files as taken, with the state of the watch that has taken them: both or neither.
--
-- KEYS: the watch, and the versions that it has taken, by time of change (ms).
-- ARGV: the step's epoch; for how much longer it has the lock, ms; the state; how many versions are kept; up to which time of change files
--     that are not kept count as taken (ms); the oldest time of change (ms) of a file that is still to be taken; the versions; and 1 if none
--     of them may have been taken before.
--@keys watch taken
--@args epoch lasting_ms state most floor_ms waiting_ms is_new versions[name changed_ms]
--
-- Beyond `most` the oldest versions go, and `floor` of the watch rises to the time of the last one that went: what is not newer than that
-- counts as taken. It stays below what is still to be taken.
-- Returns 1; 0 if another step has the lock, and -1 if one of them was taken before: then nothing was written.
--@include _lock

if not lock_holds(key_watch, arg_epoch) then return 0 end
for i = 1, arg_is_new == '1' and n_versions or 0 do
  if redis.call('ZSCORE', key_taken, ARGV[at_versions_name + i]) then return -1 end
end
redis.call('HSET', key_watch, 'state', arg_state)
for i = 1, n_versions do
  redis.call('ZADD', key_taken, ARGV[at_versions_changed_ms + i], ARGV[at_versions_name + i])
end
local floor = math.max(tonumber(redis.call('HGET', key_watch, 'floor') or arg_floor_ms), tonumber(arg_floor_ms))
local over = redis.call('ZCARD', key_taken) - tonumber(arg_most)
local oldest = over > 0 and redis.call('ZRANGE', key_taken, 0, over - 1, 'WITHSCORES') or {}
for i = 1, #oldest, 2 do
  local changed_ms = tonumber(oldest[i + 1])
  if changed_ms >= tonumber(arg_waiting_ms) then break end
  redis.call('ZREM', key_taken, oldest[i])
  floor = math.max(floor, changed_ms)
end
redis.call('HSET', key_watch, 'floor', string.format('%.0f', floor))
lock_renew(key_watch, arg_lasting_ms)
return 1
