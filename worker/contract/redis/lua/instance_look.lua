#!lua flags=allow-oom
-- Writes a certificate where there is none.
-- KEYS[1] instance id
-- ARGV[1] a new one
-- Returns {the certificate, now (ms)}.
--@include _clock

local id = redis.call('HGET', KEYS[1], 'id')
if not id then
  id = ARGV[1]
  redis.call('HSET', KEYS[1], 'id', id, 'at', string.format('%.0f', now))
end
return {id, now}
