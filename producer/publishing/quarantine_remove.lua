#!lua flags=allow-oom
-- Removes records from the quarantine.
--
-- KEYS as in quarantine.lua   ARGV: ids
-- Returns how many there were.

local OVERHEAD = 400
local removed = 0
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', KEYS[3], id) == 1 then
    redis.call('HINCRBY', KEYS[5], 'bytes', -(redis.call('HSTRLEN', KEYS[1], id) + OVERHEAD))
    redis.call('HDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[4], id)
    removed = removed + 1
  end
end
return removed
