#!lua
-- Lets a step of a sync change the members of one partition, if no later step has claimed it.
--
-- KEYS[1] the tokens of syncs   KEYS[2] the members that the sync knows
-- ARGV[1] the sync   ARGV[2] the step's epoch, see `_lock.lua`   ARGV[3] 1 = the members are forgotten
--
-- Returns 1, or 0 if a later step has claimed it.

local epoch = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^step (%d+)$')
if epoch and tonumber(epoch) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'step ' .. ARGV[2])
if ARGV[3] == '1' then redis.call('UNLINK', KEYS[2]) end
return 1
