-- A lock in a hash: `lock` (epoch of its holder), `token` (of who took it), `until` (when it lapses, ms), `length` (for how long it was
-- taken, ms), and `epoch`, the largest that was given: epochs only grow, and begin with the clock, also where the hash was lost.
-- What a holder writes elsewhere carries its epoch, and is refused there once a later one has written.
--@include _clock

-- The lease of a partition is a lock, too, whose fence is the token: each drain has another one, so it needs no epoch.
local LONGEST_LOCK = 600000

-- lock_left(key): for how many ms somebody holds it; 0 = nobody does. A lock that ends later than it can have been taken was taken
-- before the clock was set back. From now on it ends as if it had been taken now: a holder that lives renews it sooner, and nobody takes
-- it away from one that lives.
local function lock_left(key)
  local till, length = unpack(redis.call('HMGET', key, 'until', 'length'))
  local left, longest = tonumber(till or 0) - now, tonumber(length or LONGEST_LOCK)
  if left <= longest then return math.max(left, 0) end
  redis.call('HSET', key, 'until', string.format('%.0f', now + longest))
  return longest
end

-- lock_free(key): nobody holds it any more. What else its hash has stays: a lease keeps its `floor`, for ids that were given once must
-- never be given again.
local function lock_free(key) redis.call('HDEL', key, 'lock', 'token', 'until', 'length', 'owner') end

-- lock_holds(key, epoch): nobody has taken it since this epoch, whether it has lapsed or not.
local function lock_holds(key, epoch) return redis.call('HGET', key, 'lock') == epoch end

local function lock_new_epoch(key)
  local epoch = math.max(now, (tonumber(redis.call('HGET', key, 'epoch')) or 0) + 1)
  epoch = string.format('%.0f', epoch)
  redis.call('HSET', key, 'epoch', epoch)
  return epoch
end

-- lock_renew(key, length): the lock lasts from now on for `length` ms; 0 = it ends.
local function lock_renew(key, length)
  if tonumber(length) == 0 then return lock_free(key) end
  redis.call('HSET', key, 'until', string.format('%.0f', now + length), 'length', length)
end

-- lock_take(key, token, length): the epoch of the new holder, or false if another token holds it.
local function lock_take(key, token, length)
  if lock_left(key) > 0 and redis.call('HGET', key, 'token') ~= token then return false end
  local epoch = lock_new_epoch(key)
  redis.call('HSET', key, 'lock', epoch, 'token', token)
  lock_renew(key, length)
  return epoch
end
