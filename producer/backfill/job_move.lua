#!lua flags=allow-oom
-- Moves a job to another phase, if it is in one from which it may get there.
--
-- KEYS[1] job   KEYS[2] its bad rows
-- ARGV[1] the phase   ARGV[2] epoch of the reader that moves it ("" = a person does)   ARGV[3] why it failed ("" = it did not)
-- ARGV[4] the job as it is from now on, to be read from the beginning of its source ("" = as it was)   ARGV[5..] phases from which it may
-- A person's move begins a new epoch: what an earlier reader writes can then be told by its own.
-- Returns {phase that it was in, the new epoch, ms for which somebody reads it}; it did not move if the last two are 0, or the last is not.

local was = redis.call('HGET', KEYS[1], 'phase') or ''
local may = false
for i = 5, #ARGV do may = may or ARGV[i] == was end
local reader, ends = string.match(redis.call('HGET', KEYS[1], 'claim') or '', '^(%w+) (%d+)$')
if not may or (ARGV[2] ~= '' and ARGV[2] ~= reader) then return {was, 0, 0} end
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[4] ~= '' and ends and tonumber(ends) > now_ms then return {was, 0, tonumber(ends) - now_ms} end

redis.call('HSET', KEYS[1], 'phase', ARGV[1], 'problem', ARGV[3])
if ARGV[2] ~= '' then return {was, tonumber(reader), 0} end
local epoch = math.max(tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) + 1, now_ms)
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch', text)
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'spec', ARGV[4], 'claim', text .. ' 0')
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 6) == 'shard|' then redis.call('HDEL', KEYS[1], field) end
  end
  redis.call('UNLINK', KEYS[2])
end
return {was, epoch, 0}
