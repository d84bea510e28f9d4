#!lua
-- Writes the state of something that is done in steps, if the lock is still the writer's; keeps or ends the lock.
--
-- KEYS[1] the state
-- ARGV[1] token   ARGV[2] for how much longer, ms (0 = the lock ends)   ARGV[3] state   ARGV[4] when its next step is due, ms
--
-- Returns 1, or 0 if somebody else holds the lock.

if redis.call('HGET', KEYS[1], 'lock') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'next', ARGV[4])
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], 'lock', 'until')
else
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])))
end
return 1
