#!lua flags=allow-oom
-- Takes or renews the lease of a partition for a command, so that no worker drains it meanwhile; or gives it back.
--
-- KEYS[1] lease
-- ARGV[1] token  [2] for how long, ms; 0 = give it back  [3] owner, for people
--
-- Returns {1, token that was there}, or {0, owner} if somebody else holds it.
--@include _clock
--@include _lock

local token, owner = unpack(redis.call('HMGET', KEYS[1], 'token', 'owner'))
if lock_left(KEYS[1]) > 0 and token ~= ARGV[1] then return {0, owner or ''} end
if ARGV[2] ~= '0' then
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'owner', ARGV[3])
  lock_renew(KEYS[1], ARGV[2])
elseif token == ARGV[1] then
  lock_free(KEYS[1])
end
return {1, token or ''}
