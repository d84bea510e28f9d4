#!lua flags=allow-oom
-- Opens a gate, a probe first; with a trigger, only lets a probe of that one go first.
--
-- ARGV: the trigger; "" = all.
--@keys gate
--@args trigger
--@include _gate

if arg_trigger ~= '' then
  firsts[arg_trigger] = '0'
  g.firsts = list_of(firsts)
else
  unpause()
  transport_works()
  g.refused, g.why = '', ''
  g.unread, g.closed, g.closes, g.probing = 0, 0, 0, 0
  g.first, g.good = 1, 1
  g.incident = g.incident + 1
end
save({})
