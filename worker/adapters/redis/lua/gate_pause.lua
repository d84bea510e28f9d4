#!lua flags=allow-oom
-- Pauses a gate until it is resumed.
--
-- KEYS[1] gate
-- ARGV[1] reason  [2] who
--@include _gate
--@include _gate_changes

put_pause(ARGV[1], ARGV[2], '')
save({})
return redis.status_reply('OK')
