#!lua flags=allow-oom
-- Writes a certificate where there is none.
-- KEYS[1] instance id
-- ARGV[1] a new one
-- Returns {the certificate, now (ms)}.
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local id = redis.call('HGET', KEYS[1], 'id')
if not id then
  id = ARGV[1]
  redis.call('HSET', KEYS[1], 'id', id, 'at', now)
end
return {id, now}
