#!lua flags=allow-oom
-- Tells a gate what came of a send time.
--
-- ARGV: works, body, unreadable, slow, refused, failed or unsent; about, for a person; Retry-After, us (0 = none); the incident at the
--     booking; 1 = it was a probe; the batch; the fingerprint of the credentials; the names of the request's triggers, and how
--     many deliveries of each were made, both separated by spaces.
--@keys gate
--@args what about wait incident probe batch fingerprint triggers made
--
--@answer state message before
--@include _gate

local before = state_of()
local what, about, wait, probe, batch, fingerprint = arg_what, arg_about, tonumber(arg_wait), arg_probe == '1', arg_batch, arg_fingerprint
local current = tonumber(arg_incident) == g.incident
local MOST_DOUBLINGS = 10
local triggers, made_of, noes = words_of(arg_triggers), words_of(arg_made), marks_of(g.noes)

local function added(list, name)
  local all = {}
  for each in string.gmatch(list, '[^,]+') do all[#all + 1] = each end
  all[#all + 1] = name
  while #all > MOST_SUSPECTS do table.remove(all, 1) end
  return table.concat(all, ',')
end

local function close(why)
  local doubled = policy.close * 2 ^ math.min(g.closes, MOST_DOUBLINGS)
  g.closed = math.max(g.closed, now + math.min(policy.close_most, doubled))
  g.closes = g.closes + 1
  g.why = why
end

local hears = {}

function hears.works()
  g.unread = 0
  transport_works()
  if not current then return end
  g.closed, g.closes, g.why, g.first, g.probing = 0, 0, '', 0, 0
  g.good = 1
  if g.pause ~= '' and g.scope == 'access' and not is_refused(fingerprint) then unpause() end
  if g.pause == '' then g.since = 0 end
end

-- The body was refused; the rest is as if it had been taken.
function hears.body()
  hears.works()
  for _, trigger in ipairs(triggers) do
    local no = noes[trigger]
    if no ~= batch then noes[trigger] = no and '*' or batch end
  end
end

function hears.unreadable()
  g.unread = g.unread + 1
  g.incident = g.incident + 1
  if g.unread < policy.unreadable then
    g.first = 1
  elseif g.scope ~= 'all' then
    put_pause('unknown_answer', '', about)
  end
end

function hears.slow()
  transport_works()
  if current then
    g.incident = g.incident + 1
    local factor = factor_now()
    if (g.good == 1 or factor > g.factor) and now - g.lowered_at >= policy.apart then
      local left = factor == WHOLE and policy.lower or policy.lower_again
      g.failed = factor
      g.factor = math.max(policy.least, math.floor(factor * left / WHOLE))
      g.good, g.lowered_at = 0, now
    else
      close('too_many_requests')
    end
    g.failed_at = now
  end
  if wait > 0 then
    if not current then g.incident = g.incident + 1 end
    g.why = 'too_many_requests'
    g.closed = math.max(g.closed, now + wait)
  end
end

function hears.refused()
  transport_works()
  if not current then return end
  if not is_refused(fingerprint) then g.refused = added(g.refused, fingerprint) end
  g.incident = g.incident + 1
  if g.pause == '' then
    g.pause, g.scope = 'access_refused', 'access'
    if g.since == 0 then g.since = now end
  end
  if g.scope == 'access' then g.about = about end
end

function hears.failed(is_probe)
  g.said = about
  if not current and g.why ~= 'failing' then return end
  for _, trigger in ipairs(triggers) do
    if g.suspects == '' or (not has(g.suspects, trigger) and number_of(g.suspects) < MOST_SUSPECTS) then
      g.suspects = added(g.suspects, trigger)
    end
  end
  if not current then return end
  g.failures = g.failures + 1
  if is_probe or g.failures >= policy.failures then
    g.incident = g.incident + 1
    close('failing')
  end
end

function hears.unsent() end

local written = {}
for i, known in ipairs(values_of('ok|', triggers)) do
  local trigger, made = triggers[i], made_of[i] + 0
  if made > 0 then
    local at = #written
    written[at + 1], written[at + 2] = 'ok|' .. trigger, whole((known or 0) + made)
    written[at + 3], written[at + 4] = 'went|' .. trigger, whole(now)
    noes[trigger] = nil
  end
  -- The probe of a resumed trigger is back; another one has to go first, unless it was taken.
  if probe and firsts[trigger] then firsts[trigger] = what ~= 'works' and what ~= 'body' and '0' or nil end
end
local is_probe = probe and current and g.probing > 0
if is_probe then g.probing = 0 end
hears[what](is_probe)
g.firsts, g.noes = list_of(firsts), list_of(noes)
save(written)
local state, _, message = state_of()
return {state, message, before}
