#!lua flags=allow-oom
-- Says of each trigger whether it is worth reading anything of it; books nothing.
--
-- KEYS[1] gate
-- ARGV[1] policy, JSON  [2] rate, a minute  [3] fingerprint of the credentials  [4] how far ahead a slot is worth waiting for, us
--     then the triggers
--
-- Returns an answer per trigger: {1, state, 1 = the next slot is a probe's, avoid}, or
-- {0, state, reason, until (us; -1 = when a person resumes), message}.
--@include _gate

local fingerprint, worth_waiting = ARGV[3], tonumber(ARGV[4])
local limit = lowest_rate(ARGV[2])
local at = g.tat - tolerance(limit, in_force_of(limit))

local function look(trigger)
  local no = obstacle(fingerprint, trigger)
  if no then return no end
  if at - now > worth_waiting then return closed(rate_state(), 'rate', at - worth_waiting) end
  local state = state_of()
  return {1, state, goes_first(fingerprint, trigger) and 1 or 0, g.avoid}
end

lapses = fields_of('first', 5)
local answers = {}
for i = 5, #ARGV do answers[#answers + 1] = look(ARGV[i]) end
return answers
