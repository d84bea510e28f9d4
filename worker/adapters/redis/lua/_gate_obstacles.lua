-- What stands in the way of a request; after `_gate`.

local function rate_state() return factor_now() < WHOLE and 'slowed' or 'ok' end

-- Whether the closing holds for a trigger; '' = for all that ever delivered something.
-- A breaker holds for the triggers whose requests have failed, and for no other, unless they are too many to be remembered: one of which
-- nothing failed finds out for itself.
local function concerns(trigger)
  if g.why ~= 'failing' or number_of(g.suspects) >= MOST_SUSPECTS then return true end
  if trigger ~= '' then return has(g.suspects, trigger) end
  for _, name in ipairs(redis.call('HKEYS', key_gate)) do
    if string.sub(name, 1, 3) == 'ok|' and not has(g.suspects, string.sub(name, 4)) then return false end
  end
  return true
end

-- Whether the next send time goes to a probe: after a closing, a resume, a pause of others.
local function probe_is_due(fingerprint, trigger)
  if g.first == 1 or (g.pause ~= '' and not is_refused(fingerprint)) then return true end
  return g.closed > 0 and concerns(trigger)
end

-- Until when a probe of a resumed trigger is on its way; 0 = it may go, nil = none has to go first.
local function lapse_of(trigger) return tonumber(firsts[trigger]) end

-- Whether the next request of a trigger is a probe.
local function goes_first(fingerprint, trigger) return probe_is_due(fingerprint, trigger) or lapse_of(trigger) ~= nil end

-- An answer of a gate that is closed; till: -1 = when a person resumes.
local function closed(state, reason, till, message) return {0, state, reason, till, message or ''} end

-- Why nobody with these credentials may book for this trigger, or nil.
local function obstacle(fingerprint, trigger)
  if g.pause ~= '' and g.scope == 'all' then return closed('paused', g.pause, -1, g.about) end
  if is_refused(fingerprint) then return closed('paused', 'access_refused', -1, g.about) end
  if g.closed > now and concerns(trigger) then return closed(state_of(), g.why, g.closed, g.said) end
  if g.probing > now and probe_is_due(fingerprint, trigger) then return closed(state_of(), 'probing', g.probing) end
  local lapse = lapse_of(trigger)
  if lapse and lapse > now then return closed(rate_state(), 'probing', lapse) end
end
