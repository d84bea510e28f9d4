#!lua flags=allow-oom
-- Books the next send time of a gate, or says why not.
--
-- KEYS[1] gate
-- ARGV[1] rate, a minute  [2] fingerprint of the credentials  [3] live or backfill  [4] horizon, us
--     [5] 1 = as a probe, then the triggers that share the request
--
-- Returns {1, at, now, probe, incident, avoid, then by trigger its successes}, or
-- {0, state, reason, until (-1 = when a person resumes), message}; us.
--@include _gate
--@include _gate_rate
--@include _gate_obstacles

local fingerprint, kind, horizon, TRIGGERS = ARGV[2], ARGV[3], tonumber(ARGV[4]), 6
local trigger, written = ARGV[TRIGGERS], {}

local function answer(what)
  save(written)
  return what
end

local fields = {}
for i = TRIGGERS, #ARGV do
  fields[#fields + 1] = 'first|' .. ARGV[i]
  fields[#fields + 1] = 'ok|' .. ARGV[i]
end
known = values_of(fields)
local apart, behind = lowered_spacing(lowest_rate(ARGV[1]))
if #ARGV > TRIGGERS then
  for i = TRIGGERS, #ARGV do
    if obstacle(fingerprint, ARGV[i]) or goes_first(fingerprint, ARGV[i]) then return answer(closed(rate_state(), 'apart', now)) end
  end
end
local no = obstacle(fingerprint, trigger)
if no then return answer(no) end
if kind == 'backfill' and g.live > now then return answer(closed(rate_state(), 'live_first', g.live)) end

local at = math.max(now, g.tat - behind)
if at - now > math.min(horizon, policy.ahead) then
  if kind == 'live' then g.live = math.max(g.live, now + policy.live) end
  return answer(closed(rate_state(), 'rate', at - horizon))
end
g.tat = math.max(now, g.tat) + apart
if kind == 'live' and at > now then g.live = math.max(g.live, at) end
local probe = tonumber(ARGV[5])
if probe_is_due(fingerprint, trigger) then
  g.probing = at + policy.lapse
  probe = 1
elseif lapse_of(trigger) then
  written = {'first|' .. trigger, whole(at + policy.lapse)}
  probe = 1
end
local booked = {1, at, now, probe, g.incident, g.avoid}
for i = TRIGGERS, #ARGV do booked[#booked + 1] = tonumber(known['ok|' .. ARGV[i]] or 0) end
return answer(booked)
