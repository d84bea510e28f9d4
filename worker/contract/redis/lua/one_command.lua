#!lua flags=allow-oom
-- Runs one command on one key, also in a full Redis.
-- KEYS[1] the key
-- ARGV[1] the command's name  [2..] its arguments
-- Returns its answer.
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
