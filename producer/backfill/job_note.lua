#!lua
-- Writes down how far a shard of a job is, with its last bad rows, if it is the job's reader that says so.
--
-- KEYS[1] job   KEYS[2] its bad rows
-- ARGV[1] the reader's epoch   ARGV[2] shard   ARGV[3] JSON   ARGV[4] how many bad rows are kept   ARGV[5..] bad rows
-- Returns 1 if it did.
--@include _lock

if not lock_holds(KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'shard|' .. ARGV[2], ARGV[3])
for i = 5, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
if #ARGV > 4 then redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1) end
return 1
