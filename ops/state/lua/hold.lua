#!lua flags=allow-oom
-- Takes or renews the lease of a partition for a command, so that no worker drains it meanwhile.
--
-- KEYS[1] lease
-- ARGV[1] token  [2] for how long, ms  [3] owner, for people  [4] beginning of tokens that are taken away from whoever has them ("" = none)
--
-- Returns {1, token that was there}, or {0, owner} if somebody else holds it.
--@include _clock
--@include _lock

local token, owner = unpack(redis.call('HMGET', KEYS[1], 'token', 'owner'))
local yields = token and ARGV[4] ~= '' and string.sub(token, 1, #ARGV[4]) == ARGV[4]
if lock_left(KEYS[1]) > 0 and token ~= ARGV[1] and not yields then return {0, owner or ''} end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])), 'length', ARGV[2], 'owner', ARGV[3])
return {1, token or ''}
