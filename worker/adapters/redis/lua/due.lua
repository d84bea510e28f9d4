#!lua flags=allow-oom
-- Says whether somebody should be sent to this partition, and marks it as woken.
--
-- KEYS[1] lease  [2] holds  [3] streams  [4] retry  [5] wakeup
-- ARGV[1] the keys' tag  [2] for how long a trigger waits or a stream is on hold at most, ms  then the triggers that are paused, or whose gate is closed, and the lanes that are paused; and
--     the newest editions of triggers, as `trigger|EDITION`
--
-- Returns {due, waking, held}. due is 0 if there is nothing that may be done now, or somebody holds the lease; else 1 if the live lane has
-- any such work, 3 if not. waking is 1 if it was woken before, held 1 if somebody holds the lease.
--@include _clock
--@include _due
--@include _lock

local waking = redis.call('EXISTS', KEYS[5])
if lock_left(KEYS[1]) > 0 then return {0, waking, 1} end
local paused, editions = told_from(3)
local found = due(KEYS[3], KEYS[4], KEYS[2], ARGV[1], paused, editions, now, tonumber(ARGV[2]))
if found ~= 0 then redis.call('SET', KEYS[5], tostring(found)) end
return {found, waking, 0}
