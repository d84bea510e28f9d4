#!lua flags=allow-oom
-- Ends a pause, unless its trigger has paused itself and works as it did then.
-- KEYS[1] paused  [2] fingerprints
-- ARGV[1] the field of paused  [2] the trigger; "" = end it in any case
-- Returns how many pauses were ended; -1 = the trigger works as it did.
local pause = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local edition = redis.call('HGET', KEYS[2], ARGV[2])
if edition and string.find(pause, '"edition":"' .. edition .. '"', 1, true) then return -1 end
return redis.call('HDEL', KEYS[1], ARGV[1])
