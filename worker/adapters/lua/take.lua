#!lua flags=allow-oom
-- Takes the lease of a partition, if it is free, and returns all that its holder has to know.
--
-- KEYS[1] lease  [2] bell  [3] notes  [4] open  [5] rendering  [6] retry  [7] aside  [8] holds
-- ARGV[1] token  [2] lease, ms  [3] owner, for people
--
-- Returns {0, until} if somebody holds it, else
-- {1, now, notes, open, rendering, retry, aside, holds}; hashes as flat lists. Notes whose end is past are gone.
-- The bell is 1 (live) or 3 (backfill) while a drain that was rung for has not begun, 2 if it came while somebody held the lease: then release rings anew.
--@include _clock

local held = redis.call('HMGET', KEYS[1], 'token', 'until')
if held[1] and tonumber(held[2]) > now and held[1] ~= ARGV[1] then
  redis.call('SET', KEYS[2], '2', 'XX')
  return {0, tonumber(held[2])}
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])), 'owner', ARGV[3])
redis.call('DEL', KEYS[2])

local open = redis.call('HGETALL', KEYS[4])
for i = 1, #open, 2 do
  if tonumber(open[i + 1]) <= now then
    redis.call('HDEL', KEYS[4], open[i])
    redis.call('HDEL', KEYS[3], open[i])
  end
end
return {1, now, redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('GET', KEYS[5]) or '',
  redis.call('HGETALL', KEYS[6]), redis.call('HGETALL', KEYS[7]), redis.call('HGETALL', KEYS[8])}
