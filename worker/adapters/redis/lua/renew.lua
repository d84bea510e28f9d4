#!lua flags=allow-oom
-- Renews the lease.
-- KEYS[1] lease   ARGV[1] token  [2] lease, ms
-- Returns now (ms), or 0 if somebody else holds it.
--@include _clock

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
return now
