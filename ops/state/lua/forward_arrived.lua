#!lua flags=allow-oom
-- Ends the moving of a person at the partition where they arrive: what waits goes on, and syncs know them as a member.
--
-- KEYS[1] forwards  [2..] members, one hash per mark
-- ARGV[1] digest (hex)  [2] the record as it was found  [3] the profile's key  [4..] marks
--
-- Returns 1.

if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
for i = 2, #KEYS do redis.call('HSETNX', KEYS[i], ARGV[3], ARGV[2 + i]) end
return 1
