#!lua flags=allow-oom
-- Pauses a trigger or a destination that is not paused yet.
-- KEYS[1] paused   ARGV[1] field  [2] text
-- Returns 1 if it was not.

return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
