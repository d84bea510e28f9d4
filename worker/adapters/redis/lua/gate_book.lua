#!lua flags=allow-oom
-- Books the next send time of a gate, or says why not.
--
-- ARGV: the rate, a minute; the fingerprint of the credentials; live or backfill; the horizon, us; the names of the triggers that
--     share the request, separated by spaces.
--@keys gate
--@args rate fingerprint kind horizon triggers
--
-- Returns {0, state, reason, until (-1 = when a person resumes), message}, or the send time and the time, us, whether it is a probe's,
-- the incident, and the successes of each trigger:
--@answer open at now probe incident successes
--@include _gate

local fingerprint, kind, horizon = arg_fingerprint, arg_kind, tonumber(arg_horizon)
local triggers = words_of(arg_triggers)
local trigger = triggers[1]

local function saved(what)
  save({})
  return what
end

-- Only a breaker and a resumption tell one trigger from another.
local differ = g.why == 'failing' or next(firsts) ~= nil
local apart, behind = lowered_spacing(lowest_rate(arg_rate))
if #triggers > 1 then
  for i = 1, differ and #triggers or 1 do
    if obstacle(fingerprint, triggers[i]) or goes_first(fingerprint, triggers[i]) then return saved(closed(rate_state(), 'apart', now)) end
  end
end
local no = obstacle(fingerprint, trigger)
if no then return saved(no) end
if kind == 'backfill' and g.live > now then return saved(closed(rate_state(), 'live_first', g.live)) end

local at = math.max(now, g.tat - behind)
if at - now > math.min(horizon, policy.ahead) then
  if kind == 'live' then g.live = math.max(g.live, now + policy.live) end
  return saved(closed(rate_state(), 'rate', at - horizon))
end
g.tat = math.max(now, g.tat) + apart
if kind == 'live' and at > now then g.live = math.max(g.live, at) end
local probe = 0
if probe_is_due(fingerprint, trigger) then
  g.probing = at + policy.lapse
  probe = 1
elseif lapse_of(trigger) then
  firsts[trigger] = whole(at + policy.lapse)
  g.firsts = list_of(firsts)
  probe = 1
end
local successes = {}
for i, made in ipairs(values_of('ok|', triggers)) do successes[i] = tonumber(made or 0) end
return saved(answer{open = 1, at = at, now = now, probe = probe, incident = g.incident, successes = successes})
