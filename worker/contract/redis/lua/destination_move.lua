#!lua flags=allow-oom
-- Keeps whoever knows another address of its destination from a partition: nobody drains it with that any more, see `take.lua`, and
-- whoever does so now has lost the lease.
--
-- KEYS[1] lease   ARGV[1] the address and the authorization, as `place_of` has them
--@include _lock

if redis.call('HGET', KEYS[1], 'address') == ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'address', ARGV[1])
lock_free(KEYS[1])
return 1
