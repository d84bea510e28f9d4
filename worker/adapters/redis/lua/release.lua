#!lua flags=allow-oom
-- Gives the lease back, and says whether there is more to do.
--
-- KEYS[1] lease  [2] rendering  [3] holds  [4] streams  [5] retry  [6] wakeup
-- ARGV[1] token  [2] keep the lease if work has become due: 0 = never, 1 = of the live lane, 3 = any  [3] the keys' tag  [4] what the next holder renders apart: JSON, "" = nothing
--     [5] h, the number of holds; h times a name and a hold ("" = none any more)  then the triggers that are
--     paused, or whose gate is closed, and the lanes that are paused; and the newest editions of triggers, as
--     `trigger|EDITION`
--
-- Returns {released, due, wake}; {0, 0, 0} if somebody else holds it. wake is 0 if there is no work, or somebody is on the way; else 1
-- if the live lane has any that may be done now, 3 if not.
--@include _clock
--@include _due
--@include _lock

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return {0, 0, 0} end
if ARGV[4] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[4]) end
local h = tonumber(ARGV[5])
for i = 6, 5 + 2 * h, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[3], ARGV[i]) else redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
local paused, editions = told_from(6 + 2 * h)
local more = due(KEYS[4], KEYS[5], KEYS[3], ARGV[3], paused, editions, now, math.huge)
if more ~= 0 and more <= tonumber(ARGV[2]) then return {0, 1, 0} end
lock_free(KEYS[1])
local wakeup, wake = redis.call('GET', KEYS[6]), 0
if more ~= 0 and wakeup ~= '1' and wakeup ~= '3' then
  redis.call('SET', KEYS[6], tostring(more))
  wake = more
elseif more == 0 and wakeup == '2' then
  redis.call('DEL', KEYS[6])
end
return {1, more == 0 and 0 or 1, wake}
