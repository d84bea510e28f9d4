#!lua flags=allow-oom
-- Makes somebody the reader of a job, if it is to be read and nobody else reads it.
--
-- KEYS[1] job   ARGV[1] milliseconds for which the claim lasts
-- The claim is `EPOCH END`. Epochs only grow, also if the job is created anew: they begin with the clock (ms).
-- Returns {phase ("" = there is no such job), the reader's epoch (0 = it is not the reader), ms for which another is}

local phase = redis.call('HGET', KEYS[1], 'phase') or ''
if phase ~= 'reading' then return {phase, 0, 0} end
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local ends = tonumber(string.match(redis.call('HGET', KEYS[1], 'claim') or '', '^%w+ (%d+)$') or 0)
local left = ends - now_ms
if left > 0 and left <= tonumber(ARGV[1]) then return {phase, 0, left} end
local epoch = math.max(tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) + 1, now_ms)
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch', text, 'claim', text .. ' ' .. string.format('%.0f', now_ms + ARGV[1]))
return {phase, epoch, 0}
