-- What scripts do to the record of a gate that reports, pauses and resumptions change; after `_gate`.

local function transport_works()
  g.failures, g.suspects, g.avoid, g.said = 0, '', '', ''
  if g.why == 'failing' then g.closed, g.closes, g.why = 0, 0, '' end
end

local function put_pause(reason, by, about)
  g.pause, g.scope, g.by, g.about = reason, 'all', by, about
  if g.since == 0 then g.since = now end
  g.incident = g.incident + 1
end

-- `since` stays until a request succeeds: a resumption that fails has ended nothing.
local function unpause() g.pause, g.scope, g.by, g.about = '', '', '', '' end
