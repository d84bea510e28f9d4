#!lua flags=allow-oom
-- Closes a partition to what earlier readers of a job still write; `accept.lua` refuses it.
--
-- KEYS[1] jobs   ARGV[1] job   ARGV[2] the epoch from which on writing is allowed
-- Returns 1 if it was open to earlier ones.

local field = ARGV[1] .. '|epoch'
if tonumber(redis.call('HGET', KEYS[1], field) or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], field, ARGV[2])
return 1
