#!lua flags=allow-oom
-- Hands out the oldest message, if it is due and nobody else is sending it. A message whose fate nobody knows, because the process
-- that took it was killed or got no answer, is handed out once more, and then dropped: nobody gets it a third time.
-- KEYS[1] the outbox: number → JSON
-- ARGV[1] token  [2] for how long it is handed out (ms)
-- Returns {number, message as JSON, which try it is}, or nothing.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local MOST_DOUBTS = 1
local numbers = redis.call('HKEYS', KEYS[1])
table.sort(numbers, function(a, b) return tonumber(a) < tonumber(b) end)
for _, number in ipairs(numbers) do
  local entry = cjson.decode(redis.call('HGET', KEYS[1], number))
  if entry.due > now then return false end
  if entry.token then entry.doubts = (entry.doubts or 0) + 1 end
  if (entry.doubts or 0) <= MOST_DOUBTS then
    entry.token, entry.due, entry.tries = ARGV[1], now + tonumber(ARGV[2]), entry.tries + 1
    redis.call('HSET', KEYS[1], number, cjson.encode(entry))
    return {number, cjson.encode(entry.message), entry.tries}
  end
  redis.call('HDEL', KEYS[1], number)
end
return false
