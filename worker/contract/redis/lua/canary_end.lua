#!lua flags=allow-oom
-- A person lets a trigger go on: after its canary, or, if it is not paused, in the midst of it.
-- KEYS[1] {segrelay}:versions; canary.lua lists its fields   ARGV[1] trigger  [2] 1 = it was paused
-- Returns 1 if a canary was ended.
local key, trigger = KEYS[1], ARGV[1]
local stored = redis.call('HGET', key, trigger)
local goes = redis.call('HEXISTS', key, trigger .. '|left') == 1
if not stored or (goes and ARGV[2] == '1') then return 0 end
redis.call('HSET', key, trigger .. '|approved', cjson.decode(stored).version)
return redis.call('HDEL', key, trigger .. '|left', trigger .. '|out') > 0 and 1 or 0
