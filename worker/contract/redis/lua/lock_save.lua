#!lua flags=allow-oom
-- Writes fields beside a lock if it is still the writer's, and renews or ends the lock.
--
-- KEYS[1] the hash
-- ARGV[1] epoch of the writer   ARGV[2] for how much longer, ms (0 = the lock ends)   ARGV[3] the field that is returned
--   ARGV[4..] names and values of fields
--
-- Returns the field ("" = it is not there), or nothing if somebody else has taken the lock; then nothing was written.
--@include _lock

if not lock_holds(KEYS[1], ARGV[1]) then return false end
if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
lock_renew(KEYS[1], ARGV[2])
return redis.call('HGET', KEYS[1], ARGV[3]) or ''
