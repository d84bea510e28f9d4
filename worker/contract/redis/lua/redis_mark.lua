#!lua flags=allow-oom
-- Marks a partition, or the quarantine, with the secret by which it is sealed, also in a full Redis: a worker can't start without it.
--
-- KEYS[1] its hash   ARGV[1] the field  [2] the id of the secret
-- Returns 1 if it had no mark.
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
