#!lua flags=allow-oom
-- Takes a lock that ends by itself.
-- KEYS[1] lock   ARGV[1] for how long, ms
-- Returns 1 if it was free.

if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 1 end
-- What ends later than it can have been taken was taken before the clock was set back: it has ended.
if redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
