#!lua flags=allow-oom
-- Removes fields of a hash that have come to another destination, if they are still as they were; or members of a sorted set.
--
-- KEYS[1] lease  [2] the hash or the sorted set
-- ARGV[1] token  [2] `hash` or `set`  then field and value of each
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do
  if ARGV[2] == 'set' then redis.call('ZREM', KEYS[2], ARGV[i])
  elseif redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
return 1
