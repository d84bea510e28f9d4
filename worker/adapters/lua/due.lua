#!lua flags=allow-oom
-- Says whether somebody should be sent to this partition, and rings its bell.
--
-- KEYS[1] lease  [2] holds  [3] streams  [4] retry  [5] bell
-- ARGV[1] the keys' tag  then the triggers that are paused, or whose gate is closed
--
-- Returns 0 if there is nothing that may be done now, or somebody holds the lease; else 1 if the live lane has any such work, 3 if not.
--@include _clock
--@include _due

local till = redis.call('HGET', KEYS[1], 'until')
if till and tonumber(till) > now then return 0 end
local paused = {}
for i = 2, #ARGV do paused[ARGV[i]] = true end
local found = due(KEYS[3], KEYS[4], KEYS[2], ARGV[1], paused, now)
if found ~= 0 then redis.call('SET', KEYS[5], tostring(found)) end
return found
