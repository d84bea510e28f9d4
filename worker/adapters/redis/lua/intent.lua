#!lua flags=allow-oom
-- Renews the lease, and writes an intent before a request, if there is one.
--
-- KEYS[1] lease  [2] intents  [3] rendering
-- ARGV[1] token  [2] lease, ms  [3] intent id, "" = there is none  [4] intent
--
-- Returns now (ms), or 0 if somebody else holds the lease.
--@include _clock

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
  redis.call('DEL', KEYS[3])
end
return now
