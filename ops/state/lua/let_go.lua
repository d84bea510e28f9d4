#!lua flags=allow-oom
-- Gives a lease back that a command holds.
-- KEYS[1] lease   ARGV[1] token
-- Returns 1, or 0 if somebody else holds it.
--@include _lock

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
lock_free(KEYS[1])
return 1
