#!lua flags=allow-oom
-- Writes down the address of a destination; a full Redis takes it, so that a worker can start there.
--
-- KEYS[1] addresses
-- ARGV[1] destination  [2] its host and the fingerprint of its credentials
--
-- Returns nothing.

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
