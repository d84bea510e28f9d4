#!lua flags=allow-oom
-- Pauses a gate until it is resumed.
--
-- KEYS[1] gate
-- ARGV[1] policy, JSON  [2] reason  [3] who
--@include _gate

put_pause(ARGV[2], ARGV[3], '')
save()
return redis.status_reply('OK')
