#!lua
-- Takes the lock of something that is done in steps (a sync) if it is free, and clears its bell.
--
-- KEYS[1] the state   KEYS[2] its bell
-- ARGV[1] token   ARGV[2] for how long, ms
--
-- A lock that ends later than it could have been set has ended: the clock was set back.
-- The step has a number, its epoch, that is higher than that of every step before, also where the state was lost.
-- Returns {now (ms), epoch, state}, the state "" where there is none; {now} if somebody else holds the lock.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lasting = tonumber(ARGV[2])
local held = redis.call('HGET', KEYS[1], 'lock')
local till = tonumber(redis.call('HGET', KEYS[1], 'until') or 0)
if held and held ~= ARGV[1] and till > now and till <= now + lasting then return {now} end
local epoch = string.format('%.0f', math.max(now, (tonumber(redis.call('HGET', KEYS[1], 'epoch')) or 0) + 1))
redis.call('HSET', KEYS[1], 'lock', ARGV[1], 'until', string.format('%.0f', now + lasting), 'epoch', epoch)
redis.call('DEL', KEYS[2])
return {now, epoch, redis.call('HGET', KEYS[1], 'state') or ''}
