#!lua flags=allow-oom
-- Removes texts that have come to another partition, if they are still as they were.
--
-- KEYS[1] lease  [2..] their keys
-- ARGV[1] token  [2..] the texts
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[i] then redis.call('UNLINK', KEYS[i]) end
end
return 1
