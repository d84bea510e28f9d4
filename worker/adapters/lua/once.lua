#!lua flags=allow-oom
-- Takes a lock that ends by itself.
-- KEYS[1] lock   ARGV[1] for how long, ms
-- Returns 1 if it was free.

return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0
