#!lua flags=allow-oom
-- Says how the last requests of each trigger were answered.
--
--@keys gate
--@args triggers...
--
-- Returns an answer per trigger: {for how long nothing of it was taken (us; -1 = never, or the clock was set back), what was refused
-- since then: a place, * = several, '' = nothing}.
--@include _gate

local fields = {}
for i = 1, n_triggers do
  local trigger = ARGV[at_triggers + i]
  fields[#fields + 1] = 'went|' .. trigger
  fields[#fields + 1] = 'no|' .. trigger
end
local known = values_of(fields)
local answers = {}
for i = 1, n_triggers do
  local trigger = ARGV[at_triggers + i]
  local at = tonumber(known['went|' .. trigger] or now + 1)
  answers[i] = {math.max(-1, now - at), known['no|' .. trigger] or ''}
end
return answers
