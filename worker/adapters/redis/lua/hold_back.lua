#!lua flags=allow-oom
-- Opens an intent by somebody who does not hold the lease any more.
-- KEYS[1] intents  [2] open   ARGV[1] intent id  [2] intent  [3] for how long, ms
-- Returns its end (ms).
--@include _clock

local till = now + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', till))
return till
