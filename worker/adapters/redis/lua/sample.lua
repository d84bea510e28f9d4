#!lua flags=allow-oom
-- Puts a text before the others of a list, and drops the oldest.
-- KEYS[1] list   ARGV[1] text  [2] how many are kept

redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[2]) - 1)
