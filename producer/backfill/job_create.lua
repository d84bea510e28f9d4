#!lua
-- Writes a new job down; one of that name stays as it is.
--
-- KEYS[1] job   KEYS[2] one of that name was forgotten lately   ARGV[1] its specification (JSON)
-- Returns 1 if there was none of that name; -1 if it is still being forgotten: who does that may have stood still, and takes the name away.
--@include _clock

if redis.call('EXISTS', KEYS[2]) == 1 then return -1 end
if redis.call('HSETNX', KEYS[1], 'spec', ARGV[1]) == 0 then return 0 end
redis.call('HSETNX', KEYS[1], 'phase', 'reading')
redis.call('HSETNX', KEYS[1], 'moved', string.format('%.0f', now))
return 1
