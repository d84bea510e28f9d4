#!lua flags=allow-oom
-- Says whether the holder of a lease has gone. If its lease has lapsed, it is taken away: a holder that stood still settles nothing more.
--
-- KEYS[1] lease
-- ARGV[1] token of the holder
--
-- Returns 1 if it has gone, 0 if it still holds the lease.
--@include _lock

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 1 end
if lock_left(KEYS[1]) > 0 then return 0 end
lock_free(KEYS[1])
return 1
