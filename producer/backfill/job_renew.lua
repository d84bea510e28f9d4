#!lua flags=allow-oom
-- Renews the claim of a job's reader, or ends it.
--
-- KEYS[1] job   ARGV[1] the reader's epoch   ARGV[2] milliseconds for which the claim lasts from now on; 0 = it ends
-- Returns the job's phase; "" = another process is its reader, and nothing was changed.

local epoch = string.match(redis.call('HGET', KEYS[1], 'claim') or '', '^(%w+) ')
if epoch ~= ARGV[1] then return '' end
local now = redis.call('TIME')
local ends = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]
redis.call('HSET', KEYS[1], 'claim', epoch .. ' ' .. string.format('%.0f', ARGV[2] == '0' and 0 or ends))
return redis.call('HGET', KEYS[1], 'phase') or ''
