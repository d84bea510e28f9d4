#!lua flags=allow-oom
-- Says whether the holder of a lease has gone. If its lease has lapsed, it is taken away: a holder that stood still settles nothing more.
--
-- KEYS[1] lease
-- ARGV[1] token of the holder
--
-- Returns 1 if it has gone, 0 if it still holds the lease.
--@include _lease

local lease = redis.call('HMGET', KEYS[1], 'token', 'until')
if lease[1] ~= ARGV[1] then return 1 end
local clock = redis.call('TIME')
if tonumber(lease[2] or 0) > tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) then return 0 end
free_lease(KEYS[1])
return 1
