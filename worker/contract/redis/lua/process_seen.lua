#!lua flags=allow-oom
-- Writes that a process runs. KEYS[1] seen   ARGV[1] its kind
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now))
