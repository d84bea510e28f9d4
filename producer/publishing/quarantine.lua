#!lua
-- Keeps what could not be placed: one record per content, the oldest go when there is too much.
--
-- KEYS[1] texts (id -> compressed text)   KEYS[2] about (id -> JSON)   KEYS[3] seen (zset id, last seen ms)
-- KEYS[4] times (id -> how often it came)   KEYS[5] totals (bytes, dropped; sealed: the id of the secret of whoever has claimed Redis)
-- ARGV[1] now (ms)   ARGV[2] cap in bytes   ARGV[3] the id of the secret with which the records are sealed, "" = they are open
-- then per record: id, about without first seen, text
--
-- Returns {bytes, dropped now}, or {-1, 0} where Redis has another secret: nothing was kept. A record costs its text and a fixed 400 bytes.

local OVERHEAD = 400
local now, cap = ARGV[1], tonumber(ARGV[2])
if (redis.call('HGET', KEYS[5], 'sealed') or '') ~= ARGV[3] then return {-1, 0} end

for i = 4, #ARGV, 3 do
  local id, about, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local old = redis.call('HGET', KEYS[2], id)
  local first = now
  if old then
    first = string.match(old, '^%[(%d+),') or now
  else
    redis.call('HSET', KEYS[1], id, text)
    redis.call('HINCRBY', KEYS[5], 'bytes', #text + OVERHEAD)
  end
  redis.call('HSET', KEYS[2], id, '[' .. first .. ',' .. about)
  redis.call('ZADD', KEYS[3], now, id)
  redis.call('HINCRBY', KEYS[4], id, 1)
end

local bytes = tonumber(redis.call('HGET', KEYS[5], 'bytes') or '0')
local dropped = 0
while bytes > cap do
  local oldest = redis.call('ZPOPMIN', KEYS[3])
  if #oldest == 0 then break end
  bytes = redis.call('HINCRBY', KEYS[5], 'bytes', -(redis.call('HSTRLEN', KEYS[1], oldest[1]) + OVERHEAD))
  redis.call('HDEL', KEYS[1], oldest[1])
  redis.call('HDEL', KEYS[2], oldest[1])
  redis.call('HDEL', KEYS[4], oldest[1])
  dropped = dropped + 1
end
if dropped > 0 then redis.call('HINCRBY', KEYS[5], 'dropped', dropped) end
return {bytes, dropped}
