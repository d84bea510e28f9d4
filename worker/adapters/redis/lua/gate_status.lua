#!lua flags=no-writes
-- Says how a gate stands.
--
-- ARGV: the rate as configured, a minute; 0 = not known.
--@keys gate
--@args rate
--
-- Returns state, reason and message; the rate in force (a text; 0 = nobody has booked yet); the factor; 1 = it is worth starting a
-- drain; until when it is closed (us; 0 = it is not, or until a person resumes); who paused it; since when.
--@answer state reason message rate factor is_open until_us by since
--@include _gate

local state, reason, message = state_of()
local limit = lowest_rate(arg_rate == '0' and 'inf' or arg_rate)
local no = obstacle('', '')
local till = no and no[4] > 0 and no[4] or 0
local rate = limit == math.huge and 0 or in_force_of(limit)
return answer{state = state, reason = reason, message = message, rate = string.format('%.17g', rate), factor = factor_now(),
  is_open = (no or g.pause ~= '') and 0 or 1, until_us = till, by = g.by, since = g.pause ~= '' and g.since or 0}
