#!lua flags=allow-oom
-- Takes the lease of a partition, if it is free, and returns all that its holder has to know.
--
-- KEYS[1] lease  [2] wakeup  [3] notes  [4] open  [5] rendering  [6] retry  [7] aside  [8] holds  [9] reached  [10] orphans  [11] forwards
--     [12] streams
-- ARGV[1] token  [2] lease, ms  [3] owner, for people  [4] for how long an intent is open at most, ms
--
-- Returns {0, until} if somebody holds it, else
-- {1, now, notes, open, rendering, retry, aside, holds, largest digest of `reached`, number of them, orphans, number of forwards,
-- names of the streams that are not empty}; hashes as flat lists. Notes whose end is past are gone.
-- An intent that ends later than it can have been opened was opened before Redis' clock was set back: it ends as if it were opened now.
-- The wakeup is 1 (live) or 3 (backfill) while a drain that was woken has not begun, 2 if it came while somebody held the lease: then release rings anew.
--@include _clock
--@include _lease

local held = held_until(KEYS[1], now)
if held > 0 and redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  redis.call('SET', KEYS[2], '2', 'XX')
  return {0, held}
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])), 'length', ARGV[2],
  'owner', ARGV[3])
redis.call('DEL', KEYS[2])

local open, latest = redis.call('HGETALL', KEYS[4]), now + tonumber(ARGV[4])
for i = 1, #open, 2 do
  local till = tonumber(open[i + 1])
  if till <= now then
    redis.call('HDEL', KEYS[4], open[i])
    redis.call('HDEL', KEYS[3], open[i])
  elseif till > latest then
    redis.call('HSET', KEYS[4], open[i], string.format('%.0f', latest))
  end
end
return {1, now, redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('GET', KEYS[5]) or '',
  redis.call('HGETALL', KEYS[6]), redis.call('HGETALL', KEYS[7]), redis.call('HGETALL', KEYS[8]),
  redis.call('ZRANGE', KEYS[9], -1, -1)[1] or '', redis.call('ZCARD', KEYS[9]), redis.call('HGETALL', KEYS[10]),
  redis.call('HLEN', KEYS[11]), redis.call('SMEMBERS', KEYS[12])}
