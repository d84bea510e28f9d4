#!lua flags=allow-oom
-- Takes the counts away that have come to another destination.
--
-- KEYS[1] lease  [2] counts  [3] leaving  [4] jobtimes  [5] responseslost
-- ARGV[1] token  [2] their id
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[3], 'id') ~= ARGV[2] then return 1 end
redis.call('HDEL', KEYS[3], 'id')
local function take(key, field, count)
  if redis.call('HINCRBY', key, field, -count) == 0 then redis.call('HDEL', key, field) end
end
local leaving = redis.call('HGETALL', KEYS[3])
for i = 1, #leaving, 2 do
  local part, field = string.match(leaving[i], '^(.)|?(.*)$')
  if part == 'c' then take(KEYS[2], field, leaving[i + 1])
  elseif part == 't' then take(KEYS[4], field, leaving[i + 1])
  else redis.call('DECRBY', KEYS[5], leaving[i + 1]) end
end
redis.call('DEL', KEYS[3])
return 1
