#!lua flags=allow-oom
-- Takes a lock that nobody renews or gives back: it only keeps others from the same work for a while.
--
-- KEYS[1] the lock
-- ARGV[1] token, another one each time   ARGV[2] for how long, ms
--
-- Returns 1 if it was free. The hash goes some time after its end.
--@include _lock

local KEPT_MS = 60000
if not lock_take(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2] + KEPT_MS)
return 1
