#!lua flags=allow-oom
-- Announces a change of the number of partitions, begins an attempt at it, or ends it.
--
-- KEYS[1] partitions  [2] the attempt
-- ARGV[1] the numbering as it was found  [2] the numbering from now on  [3] the attempt  [4] `begin`, or `end`, which only the last attempt may
--
-- Returns 1, or 0 if the numbering or the attempt is another one by now.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[4] == 'end' then
  if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], ARGV[3])
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
