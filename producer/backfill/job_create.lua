#!lua
-- Writes a new job down; one of that name stays as it is.
--
-- KEYS[1] job   ARGV[1] its specification (JSON)
-- Returns 1 if there was none of that name.
--@include _clock

if redis.call('HSETNX', KEYS[1], 'spec', ARGV[1]) == 0 then return 0 end
redis.call('HSETNX', KEYS[1], 'phase', 'reading')
redis.call('HSETNX', KEYS[1], 'moved', string.format('%.0f', now))
return 1
