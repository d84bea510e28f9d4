#!lua flags=allow-oom
-- Announces a change of the number of partitions, or ends it.
--
-- KEYS[1] partitions   KEYS[2] renumbering
-- ARGV[1] the numbering as it was found  [2] the numbering from now on
--
-- Returns 1, or 0 if it is another one by now.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1
