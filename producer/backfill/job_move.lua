#!lua flags=allow-oom
-- Moves a job to another phase, if it is in one from which it may get there.
--
-- KEYS[1] job
-- ARGV[1] the phase   ARGV[2] epoch of the reader that moves it ("" = a person does)   ARGV[3] why it failed ("" = it did not)
-- ARGV[4] the job as it is from now on, to be read from the beginning of its source ("" = as it was)   ARGV[5..] phases from which it may
-- A person's move begins a new epoch: what an earlier reader writes can then be told by its own.
-- Returns {phase that it was in, the new epoch, ms for which somebody reads it}; it did not move if the last two are 0, or the last is not.
--@include _lock

local was = redis.call('HGET', KEYS[1], 'phase') or ''
local may = false
for i = 5, #ARGV do may = may or ARGV[i] == was end
if not may or (ARGV[2] ~= '' and not lock_holds(KEYS[1], ARGV[2])) then return {was, 0, 0} end
local left = lock_left(KEYS[1])
if ARGV[4] ~= '' and left > 0 then return {was, 0, left} end

redis.call('HSET', KEYS[1], 'phase', ARGV[1], 'problem', ARGV[3], 'moved', string.format('%.0f', now))
if ARGV[2] ~= '' then return {was, tonumber(ARGV[2]), 0} end
local epoch = lock_new_epoch(KEYS[1])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'spec', ARGV[4])
  lock_renew(KEYS[1], 0)
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 6) == 'shard|' then redis.call('HDEL', KEYS[1], field) end
  end
end
return {was, tonumber(epoch), 0}
