#!lua flags=allow-oom
-- Writes that a process is there, and forgets those that have not said so for a while.
--
-- KEYS[1] processes  [2] seen
-- ARGV[1] the process  [2] for how long that counts, ms  [3] its kind
--
-- Returns nothing.

local clock = redis.call('TIME')
-- To the microsecond, so that what was said last stands last.
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local life = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - 1000 * life))
-- What was said later than now was said before the clock was set back.
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], life)
redis.call('HSET', KEYS[2], ARGV[3], string.format('%.0f', math.floor(now / 1000)))
