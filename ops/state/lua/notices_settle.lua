#!lua flags=allow-oom
-- Says what became of a message: it is sent or given up, or is to be tried again.
-- KEYS[1] the outbox: number → JSON
-- ARGV[1] number  [2] token  [3] in how long it is tried again (ms); -1 = it is done
--   [4] 1 = nobody knows whether it was taken
-- Returns 1, or 0 if somebody else has it now.

local text = redis.call('HGET', KEYS[1], ARGV[1])
local entry = text and cjson.decode(text)
if not entry or entry.token ~= ARGV[2] then return 0 end
if ARGV[3] == '-1' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 1
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
if ARGV[4] ~= '1' then entry.token = nil end
entry.due = now + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(entry))
return 1
