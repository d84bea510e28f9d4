#!lua flags=allow-oom
-- Tells a gate what came of a slot.
--
-- KEYS[1] gate
-- ARGV[1] policy, JSON  [2] works, body, unreadable, slow, refused, failed or unsent  [3] about, for a person  [4] Retry-After, us; 0 = none
--     [5] incident at the booking  [6] 1 = it was a probe  [7] batch  [8] fingerprint of the credentials
--     then by each trigger of the request: its name, and how many deliveries of it were made
--
-- Returns {state, reason, message}.
--@include _gate
--@include _calls
--@include _counts

local what, about, wait, fingerprint = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[8]
local current = tonumber(ARGV[5]) == g.incident
local MOST_DOUBLINGS, TRIGGERS = 10, 9

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
  for i = TRIGGERS, ARGV[6] == '1' and #ARGV or 0, 2 do redis.call('HDEL', KEYS[1], 'first|' .. ARGV[i]) end
  if not current then return end
  g.closed, g.closes, g.why, g.first, g.probing = 0, 0, '', 0, 0
  g.good = 1
  if g.pause ~= '' and g.scope == 'access' and not is_refused(fingerprint) then unpause() end
end

-- The body was refused; the rest is as if it had been taken.
function hears.body()
  hears.works()
  local known = fields_of('no', TRIGGERS)
  for i = TRIGGERS, #ARGV, 2 do
    local no = known[ARGV[i]]
    if no ~= '*' and no ~= ARGV[7] then redis.call('HSET', KEYS[1], 'no|' .. ARGV[i], no and '*' or ARGV[7]) end
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
  if not is_refused(fingerprint) then g.refused = added(g.refused, fingerprint, MOST_SUSPECTS) end
  g.incident = g.incident + 1
  if g.pause == '' then g.pause, g.scope, g.since = 'access_refused', 'access', now end
  if g.scope == 'access' then g.about = about end
end

function hears.failed(is_probe)
  g.avoid, g.said = ARGV[7], about
  if not current and g.why ~= 'failing' then return end
  for i = TRIGGERS, #ARGV, 2 do
    if g.suspects == '' or (not has(g.suspects, ARGV[i]) and number_of(g.suspects) < MOST_SUSPECTS) then
      g.suspects = added(g.suspects, ARGV[i], MOST_SUSPECTS)
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

local went, taken = {}, {}
for i = TRIGGERS, #ARGV, 2 do
  if ARGV[i + 1] ~= '0' then
    count('ok|' .. ARGV[i], tonumber(ARGV[i + 1]))
    went[#went + 1], went[#went + 2] = 'went|' .. ARGV[i], whole(now)
    taken[#taken + 1] = 'no|' .. ARGV[i]
  end
end
call_with_all('HSET', KEYS[1], went)
call_with_all('HDEL', KEYS[1], taken)
write_counts(KEYS[1])
local is_probe = ARGV[6] == '1' and current and g.probing > 0
if is_probe then g.probing = 0 end
for i = TRIGGERS, ARGV[6] == '1' and #ARGV or 0, 2 do
  if redis.call('HEXISTS', KEYS[1], 'first|' .. ARGV[i]) == 1 then redis.call('HSET', KEYS[1], 'first|' .. ARGV[i], '0') end
end
hears[what](is_probe)
save()
return {state_of()}
