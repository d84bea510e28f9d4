#!lua flags=allow-oom
-- Writes that a process runs. KEYS[1] seen   ARGV[1] its kind
--@include _clock

redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now))
