#!lua
-- Writes down how far a shard of a job is, if it is the job's reader that says so.
--
-- KEYS[1] job   ARGV[1] the reader's epoch   ARGV[2] shard   ARGV[3] JSON
-- Returns 1 if it did.
--@include _lock

if not lock_holds(KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'shard|' .. ARGV[2], ARGV[3])
return 1
