#!lua flags=allow-oom
-- Books the next slot of a gate, or says why not.
--
-- KEYS[1] gate
-- ARGV[1] policy, JSON  [2] rate, a minute  [3] fingerprint of the credentials  [4] live or backfill  [5] horizon, us
--     [6] 1 = as a probe, then the triggers that share the request
--
-- Returns {1, at, now, probe, incident, avoid, then by trigger its successes}, or
-- {0, state, reason, until (-1 = when a person resumes), message}; us.
--@include _gate

local fingerprint, kind, horizon, trigger = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[7]

local function answer(what)
  save()
  return what
end

local limit = lowest_rate(ARGV[2])
local in_force = in_force_of(limit)
if #ARGV > 7 then
  lapses = fields_of('first', 7)
  for i = 7, #ARGV do
    if obstacle(fingerprint, ARGV[i]) or goes_first(fingerprint, ARGV[i]) then return answer(closed(rate_state(), 'apart', now)) end
  end
end
local no = obstacle(fingerprint, trigger)
if no then return answer(no) end
if kind == 'backfill' and g.live > now then return answer(closed(rate_state(), 'live_first', g.live)) end

local at = math.max(now, g.tat - tolerance(limit, in_force))
if at - now > math.min(horizon, policy.ahead) then
  if kind == 'live' then g.live = math.max(g.live, now + policy.live) end
  return answer(closed(rate_state(), 'rate', at - horizon))
end
g.tat = math.max(now, g.tat) + spacing(in_force)
if kind == 'live' and at > now then g.live = math.max(g.live, at) end
local probe = tonumber(ARGV[6])
if probe_is_due(fingerprint, trigger) then
  g.probing = at + policy.lapse
  probe = 1
elseif lapse_of(trigger) then
  redis.call('HSET', KEYS[1], 'first|' .. trigger, whole(at + policy.lapse))
  probe = 1
end
local booked = {1, at, now, probe, g.incident, g.avoid}
local made = fields_of('ok', 7)
for i = 7, #ARGV do booked[#booked + 1] = tonumber(made[ARGV[i]] or 0) end
return answer(booked)
