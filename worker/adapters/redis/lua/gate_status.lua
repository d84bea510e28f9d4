#!lua flags=no-writes
-- Says how a gate stands.
--
-- KEYS[1] gate
-- ARGV[1] rate as configured, a minute; 0 = not known
--
-- Returns {state, reason, message, rate in force (a text; 0 = nobody has booked yet), factor, 1 = it is worth starting a drain,
-- until when it is closed (us; 0 = it is not, or until a person resumes), who paused it, since when}.
--@include _gate
--@include _gate_rate
--@include _gate_obstacles

local state, reason, message = state_of()
local limit = lowest_rate(ARGV[1] == '0' and 'inf' or ARGV[1])
local no = obstacle('', '')
local till = no and no[4] > 0 and no[4] or 0
local rate = limit == math.huge and 0 or in_force_of(limit)
return {state, reason, message, string.format('%.17g', rate), factor_now(), (no or g.pause ~= '') and 0 or 1, till, g.by, g.since}
