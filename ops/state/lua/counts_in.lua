#!lua flags=allow-oom
-- Adds the counts that come from another destination, once.
--
-- KEYS[1] lease  [2] counts  [3] jobtimes  [4] responseslost  [5] carried
-- ARGV[1] token  [2] their mark in `carried`  [3] their id  [4] retention of the times of jobs, ms  then fields and numbers, as `counts_leave.lua` has them
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[5], ARGV[2]) == ARGV[3] then return 1 end
redis.call('HSET', KEYS[5], ARGV[2], ARGV[3])
for i = 5, #ARGV, 2 do
  local part, field = string.match(ARGV[i], '^(.)|?(.*)$')
  if part == 'c' then redis.call('HINCRBY', KEYS[2], field, ARGV[i + 1])
  elseif part == 't' then
    redis.call('HINCRBY', KEYS[3], field, ARGV[i + 1])
    redis.call('PEXPIRE', KEYS[3], ARGV[4])
  else redis.call('INCRBY', KEYS[4], ARGV[i + 1]) end
end
return 1
