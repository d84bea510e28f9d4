#!lua flags=allow-oom
-- Takes or renews the lease of a partition for a command, so that no worker drains it meanwhile.
--
-- KEYS[1] lease
-- ARGV[1] token  [2] for how long, ms  [3] owner, for people
--
-- Returns {1, token that was there}, or {0, owner} if somebody else holds it.
--@include _clock
--@include _lock

local token, owner = unpack(redis.call('HMGET', KEYS[1], 'token', 'owner'))
if lock_left(KEYS[1]) > 0 and token ~= ARGV[1] then return {0, owner or ''} end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])), 'length', ARGV[2], 'owner', ARGV[3])
return {1, token or ''}
