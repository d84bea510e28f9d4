#!lua flags=allow-oom
-- Says how the last requests of each trigger were answered.
--
--@keys gate
--@args triggers
--
-- Returns an answer per trigger: {for how long nothing of it was taken (us; -1 = never, or the clock was set back), what was refused
-- since then: a place, * = several, '' = nothing}.
--@include _gate

local triggers, noes, answers = words_of(arg_triggers), marks_of(g.noes), {}
for i, went in ipairs(values_of('went|', triggers)) do
  answers[i] = {math.max(-1, now - tonumber(went or now + 1)), noes[triggers[i]] or ''}
end
return answers
