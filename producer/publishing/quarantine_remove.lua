#!lua flags=allow-oom
-- Removes records from the quarantine.
--
-- KEYS as in quarantine.lua   ARGV[1] '' = a person asked for it; else only those that came last before this time (ms)
-- ARGV[2] until when (ms) that is allowed   ARGV[3..] ids
-- Returns how many there were.
--@include _clock

local OVERHEAD = 400
local before, allowed_until = tonumber(ARGV[1]), tonumber(ARGV[2])
if before and now >= allowed_until then return 0 end
local removed = 0
for i = 3, #ARGV do
  local id = ARGV[i]
  local seen_ms = redis.call('ZSCORE', KEYS[3], id)
  if seen_ms and (not before or tonumber(seen_ms) < before) then
    redis.call('ZREM', KEYS[3], id)
    redis.call('HINCRBY', KEYS[5], 'bytes', -(redis.call('HSTRLEN', KEYS[1], id) + OVERHEAD))
    redis.call('HDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[4], id)
    removed = removed + 1
  end
end
if before and removed > 0 then redis.call('HINCRBY', KEYS[5], 'expired', removed) end
return removed
