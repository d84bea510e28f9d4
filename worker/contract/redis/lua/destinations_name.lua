#!lua flags=allow-oom
-- Adds names to the destinations that have anything, unless the number of partitions has changed
-- since the caller looked: a change closes the partitions of all that are named when it begins.
-- KEYS[1] partitions  [2] destinations
-- ARGV[1] the numbering as the caller knows it  [2..] names
-- Returns 1, or 0 if it is another one by now.
if (redis.call('GET', KEYS[1]) or ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SADD', KEYS[2], unpack(ARGV, 2))
return 1
