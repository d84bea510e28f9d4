-- What the scripts of the gate share; the same as worker/core/gate_rules.py, line by line.
-- Numbers are whole, below 2^53, and are written without tostring. `g` is the record, `save` writes what has changed of it.
--@include _clock_us
local policy = cjson.decode(ARGV[1])
local WHOLE, MOST_SUSPECTS = 1000000, 20
local NUMBERS = {seen = 0, tat = 0, live = 0, factor = WHOLE, incident = 0, good = 1, lowered_at = 0, failed = 0, failed_at = 0,
  closed = 0, closes = 0, first = 0, probing = 0, failures = 0, unread = 0, since = 0}
local TIMES = {'tat', 'live', 'lowered_at', 'failed_at', 'closed', 'probing', 'since'}
local TEXTS = {why = '', suspects = '', avoid = '', said = '', pause = '', scope = '', by = '', about = '', refused = '', rates = ''}

local function whole(number) return string.format('%.0f', number) end

local g, before, names = {}, {}, {}
for name, value in pairs(NUMBERS) do g[name] = value; names[#names + 1] = name end
for name, value in pairs(TEXTS) do g[name] = value; names[#names + 1] = name end
for i, stored in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
  local name = names[i]
  if stored then
    if NUMBERS[name] then g[name] = tonumber(stored) else g[name] = stored end
  end
  before[name] = g[name]
end

local function save()
  local changed = {}
  for _, name in ipairs(names) do
    if g[name] ~= before[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = NUMBERS[name] and whole(g[name]) or g[name]
    end
  end
  if #changed > 0 then redis.call('HSET', KEYS[1], unpack(changed)) end
end

local function has(list, name) return string.find(',' .. list .. ',', ',' .. name .. ',', 1, true) ~= nil end

local function number_of(list)
  local _, commas = string.gsub(list, ',', ',')
  return commas + 1
end

local function added(list, name, most)
  local all = {}
  for known in string.gmatch(list, '[^,]+') do all[#all + 1] = known end
  all[#all + 1] = name
  while #all > most do table.remove(all, 1) end
  return table.concat(all, ',')
end

local function is_refused(fingerprint) return g.refused ~= '' and has(g.refused, fingerprint) end

-- Outlives a clock that was set back: all that was written down by it moves with it. For whoever writes, first of all.
local function steady()
  local step = g.seen - now
  g.seen = now
  if step <= 0 then return end
  for _, name in ipairs(TIMES) do
    if g[name] > 0 then g[name] = g[name] - step end
  end
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    local till = string.sub(name, 1, 6) == 'first|' and tonumber(redis.call('HGET', KEYS[1], name)) or 0
    if till > 0 then redis.call('HSET', KEYS[1], name, whole(till - step)) end
  end
end

-- What slow-downs have left of the rate by now; it rises with the time without any.
local function factor_now()
  local since = now - g.failed_at
  if g.factor == WHOLE or since >= policy.recovered then return WHOLE end
  local climbing = math.max(0, math.min(since, policy.memory) - policy.hold)
  local ceiling = math.max(g.factor, math.floor(g.failed * policy.short / WHOLE))
  local factor = math.min(ceiling, g.factor + math.floor(climbing * policy.raise_a_second / 1000000))
  if since > policy.memory then
    climbing = since - policy.memory
    local evenly = (WHOLE - factor) * climbing / (policy.recovered - policy.memory)
    local usual = climbing * policy.raise_a_second / 1000000
    factor = math.min(WHOLE, factor + math.floor(math.max(evenly, usual)))
  end
  return factor
end

local function rate_state() return factor_now() < WHOLE and 'slowed' or 'ok' end

-- Returns state, reason and message.
local function state_of()
  if g.pause ~= '' then return 'paused', g.pause, g.about end
  if g.why == 'failing' then return 'broken', 'failing', g.said end
  if g.why ~= '' or factor_now() < WHOLE then return 'slowed', 'too_many_requests', '' end
  return 'ok', '', ''
end

local function transport_works()
  g.failures, g.suspects, g.avoid, g.said = 0, '', '', ''
  if g.why == 'failing' then g.closed, g.closes, g.why = 0, 0, '' end
end

local function put_pause(reason, by, about)
  g.pause, g.scope, g.by, g.about, g.since = reason, 'all', by, about, now
  g.incident = g.incident + 1
end

local function unpause() g.pause, g.scope, g.by, g.about, g.since = '', '', '', '', 0 end
