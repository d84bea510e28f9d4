#!lua flags=allow-oom
-- Says of each trigger whether it is worth reading anything of it; books nothing.
--
-- ARGV: the rate, a minute; the fingerprint of the credentials; how far ahead a send time is worth waiting for, us; the triggers.
--@keys gate
--@args rate fingerprint worth_waiting triggers...
--
-- Returns an answer per trigger: {1, state, 1 = the next send time is a probe's, avoid}, or
-- {0, state, reason, until (us; -1 = when a person resumes), message}.
--@include _gate
--@include _gate_rate
--@include _gate_obstacles

local fingerprint, worth_waiting = arg_fingerprint, tonumber(arg_worth_waiting)
local _, behind = lowered_spacing(lowest_rate(arg_rate))
local at = g.tat - behind

local function look(trigger)
  local no = obstacle(fingerprint, trigger)
  if no then return no end
  if at - now > worth_waiting then return closed(rate_state(), 'rate', at - worth_waiting) end
  return {1, state_of(), goes_first(fingerprint, trigger) and 1 or 0, g.avoid}
end

-- As a rule, no trigger was resumed. To ask for each of many triggers would cost more than to look through all fields.
local cursor = '0'
repeat
  local found = redis.call('HSCAN', key_gate, cursor, 'MATCH', 'first|*', 'COUNT', 1000)
  cursor = found[1]
  for i = 1, #found[2], 2 do known[found[2][i]] = found[2][i + 1] end
until cursor == '0'
local differ, answers, of_all = g.why == 'failing' or next(known) ~= nil, {}, nil
for i = 1, n_triggers do
  -- Only a breaker and a resumption tell one trigger from another.
  of_all = not differ and of_all or look(ARGV[at_triggers + i])
  answers[#answers + 1] = of_all
end
return answers
