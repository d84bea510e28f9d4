#!lua flags=allow-oom
-- Adds the counts of renamed people that come from another partition, once.
--
-- KEYS[1] lease  [2] changed  [3] carried
-- ARGV[1] token  [2] their mark in `carried`  then fields and numbers: `refused_ms` is a time, of which the later one holds
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if redis.call('HSETNX', KEYS[3], ARGV[2], '1') == 0 then return 1 end
for i = 3, #ARGV, 2 do
  local field, number = ARGV[i], ARGV[i + 1]
  if field ~= 'refused_ms' then redis.call('HINCRBY', KEYS[2], field, number)
  elseif tonumber(redis.call('HGET', KEYS[2], field) or 0) < tonumber(number) then redis.call('HSET', KEYS[2], field, number) end
end
return 1
