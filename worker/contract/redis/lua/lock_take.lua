#!lua flags=allow-oom
-- Takes a lock if it is free, and returns a field of its hash.
--
-- KEYS[1] the hash   KEYS[2] a wake-up that is cleared where the lock is taken; may be left out
-- ARGV[1] token   ARGV[2] for how long, ms   ARGV[3] the field that is returned   ARGV[4] the value that it has to have; "" = any
--
-- Returns {now (ms), epoch of the holder (0 = it was not taken), ms for which somebody else holds it, the field ("" = it is not there)}.
--@include _lock

local found = redis.call('HGET', KEYS[1], ARGV[3]) or ''
if ARGV[4] ~= '' and found ~= ARGV[4] then return {now, '0', 0, found} end
local epoch = lock_take(KEYS[1], ARGV[1], ARGV[2])
if not epoch then return {now, '0', lock_left(KEYS[1]), found} end
if KEYS[2] then redis.call('DEL', KEYS[2]) end
if ARGV[3] == '' then redis.call('PEXPIRE', KEYS[1], ARGV[2] + 60000) end -- a turn that nobody renews: the hash holds nothing else
return {now, epoch, 0, found}
