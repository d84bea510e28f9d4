#!lua flags=allow-oom
-- Writes that the command runs which renames these people.
--
-- KEYS[1] renaming
-- ARGV[1..] digests (hex)
--
-- Returns 1.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
for i = 1, #ARGV do redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[i]) end
return 1
