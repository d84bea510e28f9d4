#!lua flags=allow-oom
-- Books the next slot of a gate, or says why not.
--
-- KEYS[1] gate
-- ARGV[1] policy, JSON  [2] rate, a minute  [3] fingerprint of the credentials  [4] live or backfill  [5] trigger  [6] horizon, us
--     [7] 1 = as a probe
--
-- Returns {1, at, now, successes, probe, incident, avoid}, or {0, state, reason, until (-1 = when a person resumes), message}; us.
--@include _gate

local fingerprint, kind, trigger, horizon = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])

local function answer(what)
  save()
  return what
end

local limit = lowest_rate(ARGV[2])
local in_force = in_force_of(limit)
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
local probe = tonumber(ARGV[7])
if probe_is_due(fingerprint, trigger) then
  g.probing = at + policy.lapse
  probe = 1
elseif lapse_of(trigger) then
  redis.call('HSET', KEYS[1], 'first|' .. trigger, whole(at + policy.lapse))
  probe = 1
end
local successes = redis.call('HGET', KEYS[1], 'ok|' .. trigger)
return answer({1, at, now, tonumber(successes or 0), probe, g.incident, g.avoid})
