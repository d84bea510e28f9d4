#!lua flags=allow-oom
-- Says whether somebody should be sent to this partition, and rings its bell.
--
-- KEYS[1] lease  [2] holds  [3] streams  [4] retry  [5] bell
-- ARGV[1] the keys' tag  then the paused triggers
--
-- Returns {due, live}: due is 1 if there is work that may be done now and nobody holds the lease; live is 1 if the live lane has any.
--@include _clock
--@include _due

local till = redis.call('HGET', KEYS[1], 'until')
if till and tonumber(till) > now then return {0, 0} end
local paused = {}
for i = 2, #ARGV do paused[ARGV[i]] = true end
if due(KEYS[3], KEYS[4], KEYS[2], ARGV[1], paused, now) == 0 then return {0, 0} end
local live = has_live(KEYS[3])
redis.call('SET', KEYS[5], live and '1' or '3')
return {1, live and 1 or 0}
