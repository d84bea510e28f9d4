#!lua flags=allow-oom
-- Says of each trigger whether it is worth reading anything of it; books nothing.
--
-- ARGV: the rate, a minute; the fingerprint of the credentials; how far ahead a send time is worth waiting for, us; the names of the
--     triggers, separated by spaces.
--@keys gate
--@args rate fingerprint worth_waiting triggers
--
-- Returns an answer per trigger, or a single one that holds for all of them: {1, state, 1 = the next send time is a probe's}, or
-- {0, state, reason, until (us; -1 = when a person resumes), message}.
--@include _gate

local fingerprint, worth_waiting = arg_fingerprint, tonumber(arg_worth_waiting)
local _, behind = lowered_spacing(lowest_rate(arg_rate))
local at = g.tat - behind

local function look(trigger)
  local no = obstacle(fingerprint, trigger)
  if no then return no end
  if at - now > worth_waiting then return closed(rate_state(), 'rate', at - worth_waiting) end
  return {1, state_of(), goes_first(fingerprint, trigger) and 1 or 0}
end

-- Only a breaker and a resumption tell one trigger from another.
if g.why ~= 'failing' and next(firsts) == nil then return {look('')} end
local answers = {}
for i, trigger in ipairs(words_of(arg_triggers)) do answers[i] = look(trigger) end
return answers
