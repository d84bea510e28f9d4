#!lua flags=allow-oom
-- Says how the last requests of each trigger were answered.
--
-- KEYS[1] gate
-- ARGV[1] policy, JSON, then the triggers
--
-- Returns an answer per trigger: {for how long nothing of it was taken (us; -1 = never, or the clock was set back), what was refused
-- since then: a place, * = several, '' = nothing}.
--@include _gate

local went, no = fields_of('went', 2), fields_of('no', 2)
local answers = {}
for i = 2, #ARGV do
  local at = tonumber(went[ARGV[i]] or now + 1)
  answers[i - 1] = {math.max(-1, now - at), no[ARGV[i]] or ''}
end
return answers
