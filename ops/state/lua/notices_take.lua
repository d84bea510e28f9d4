#!lua flags=allow-oom
-- Hands out the oldest message, if it is due and nobody else is sending it.
-- KEYS[1] the outbox: number → JSON
-- ARGV[1] token  [2] for how long it is handed out (ms)
-- Returns {number, message as JSON, which try it is}, or nothing.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local oldest
for _, number in ipairs(redis.call('HKEYS', KEYS[1])) do
  if not oldest or tonumber(number) < tonumber(oldest) then oldest = number end
end
if not oldest then return false end
local entry = cjson.decode(redis.call('HGET', KEYS[1], oldest))
if entry.due > now then return false end
entry.token, entry.due, entry.tries = ARGV[1], now + tonumber(ARGV[2]), entry.tries + 1
redis.call('HSET', KEYS[1], oldest, cjson.encode(entry))
return {oldest, cjson.encode(entry.message), entry.tries}
