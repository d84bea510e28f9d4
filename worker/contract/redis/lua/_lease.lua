-- held_until(lease, now): until when somebody holds this lease; 0 = nobody does.
-- A lease that ends later than it can have been asked for was written before Redis' clock was set back. From now on it ends as if it
-- had been taken now: a holder that lives renews it sooner, and nobody takes it away from one that lives.
local LONGEST_LEASE = 600000

-- free_lease(lease): nobody holds it any more. Its `floor` stays, for ids that were given once must never be given again.
local function free_lease(lease) redis.call('HDEL', lease, 'token', 'until', 'length', 'owner') end

local function held_until(lease, now)
  local till, length = unpack(redis.call('HMGET', lease, 'until', 'length'))
  till = tonumber(till or 0)
  if till <= now then return 0 end
  local latest = now + tonumber(length or LONGEST_LEASE)
  if till <= latest then return till end
  redis.call('HSET', lease, 'until', string.format('%.0f', latest))
  return latest
end
