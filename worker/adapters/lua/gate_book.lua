#!lua flags=allow-oom
-- Books the next slot of a gate, or says why not.
--
-- KEYS[1] gate
-- ARGV[1] policy, JSON  [2] rate, a minute  [3] fingerprint of the credentials  [4] live or backfill  [5] trigger  [6] horizon, us
--     [7] 1 = as a probe
--
-- Returns {1, at, now, successes, probe, incident, avoid}, or {0, state, reason, until (-1 = when a person resumes), message}; us.
--@include _gate

steady()
local rate, fingerprint, kind, trigger, horizon = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local own = redis.call('HMGET', KEYS[1], 'ok|' .. trigger, 'first|' .. trigger)
local lapse = own[2] and tonumber(own[2])

local function lowest_rate()
  local kept, lowest, fresh = {}, rate, false
  for text, seen in string.gmatch(g.rates, '([^@;]+)@(%d+)') do
    local age, keep = now - tonumber(seen), true
    if tonumber(text) == rate then
      fresh = age >= 0 and age < policy.rates_fresh
      keep = fresh
    else
      keep = age >= 0 and age < policy.rates
    end
    if keep then
      kept[#kept + 1] = text .. '@' .. seen
      lowest = math.min(lowest, tonumber(text))
    end
  end
  if not fresh then
    kept[#kept + 1] = ARGV[2] .. '@' .. whole(now)
    g.rates = table.concat(kept, ';')
  end
  return lowest
end

local function burst(limit)
  if limit < policy.burst_from then return 0 end
  return math.min(policy.burst_most, math.floor(limit * policy.burst_percent / 100))
end

local function spacing(limit)
  if limit < 1 then return math.ceil((policy.minute + policy.late) / limit) end
  local regular = math.floor(limit) - burst(limit)
  local late = math.ceil((policy.minute + policy.late) / regular)
  if regular == 1 then return late end
  return math.max(late, math.ceil(policy.minute / (regular - 1)))
end

local function concerns() return g.why ~= 'failing' or has(g.suspects, trigger) or number_of(g.suspects) >= MOST_SUSPECTS end

local function probe_is_due()
  if g.first == 1 or (g.pause ~= '' and not is_refused(fingerprint)) then return true end
  return g.closed > 0 and concerns()
end

local function closed(state, reason, till, message)
  save()
  return {0, state, reason, till, message or ''}
end

local limit = lowest_rate()
local in_force = math.max(limit * factor_now() / WHOLE, math.min(limit, 1))
local space = spacing(in_force)

local state = state_of()
if g.pause ~= '' and g.scope == 'all' then return closed('paused', g.pause, -1, g.about) end
if is_refused(fingerprint) then return closed('paused', 'access_refused', -1, g.about) end
if g.closed > now and concerns() then return closed(state, g.why, g.closed, g.said) end
if g.probing > now and probe_is_due() then return closed(state, 'probing', g.probing) end
if lapse and lapse > now then return closed(rate_state(), 'probing', lapse) end
if kind == 'backfill' and g.live > now then return closed(rate_state(), 'live_first', g.live) end

local tolerance = math.min(burst(limit) * spacing(limit), burst(in_force) * space)
local at = math.max(now, g.tat - tolerance)
if at - now > math.min(horizon, policy.ahead) then
  if kind == 'live' then g.live = math.max(g.live, now + policy.live) end
  return closed(rate_state(), 'rate', at - horizon)
end
g.tat = math.max(now, g.tat) + space
if kind == 'live' and at > now then g.live = math.max(g.live, at) end
local probe = tonumber(ARGV[7])
if probe_is_due() then
  g.probing = at + policy.lapse
  probe = 1
elseif lapse then
  redis.call('HSET', KEYS[1], 'first|' .. trigger, whole(at + policy.lapse))
  probe = 1
end
save()
return {1, at, now, own[1] and tonumber(own[1]) or 0, probe, g.incident, g.avoid}
