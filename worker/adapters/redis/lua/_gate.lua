-- What the scripts of the gate share: what it remembers, and the rules by which it opens and closes.
--
-- ARGV[1] is the policy, JSON: see `Policy` in worker/core/gate.py. `g` is the record, `save` writes what has changed of it. All times
-- are whole microseconds by Redis' clock, factors are parts per million; whole numbers are written without tostring.
-- The record is the hash KEYS[1]:
--   seen        when it was changed last
--   tat         when the next regular slot would be
--   live        until then a live request waits for its slot
--   factor      what the last lowering has left of the rate; `factor_now` says what is left now
--   incident    counts lowerings, closings and resumptions
--   good        1 if a request succeeded since the last lowering
--   lowered_at  when the rate was lowered last
--   failed      the factor at which a 429 came last; 0 = none remembered
--   failed_at   when it came
--   closed      closed until then, and afterwards one probe goes first; 0 = open
--   why         it closed: too_many_requests or failing
--   closes      how often it has closed in a row
--   first       1 = a probe goes first
--   probing     a probe is on its way, and given up at this time; 0 = none
--   failures    in a row
--   suspects    the triggers that had them, with commas
--   avoid       the batch that failed last
--   said        what failed last, for a person
--   unread      answers in a row that could not be read
--   pause       why it is paused; '' = it is not
--   scope       access = only for the credentials in `refused`; all
--   by          who paused it
--   since       when
--   about       for a person: what led to the pause
--   refused     fingerprints of credentials that were refused, with commas
--   rates       `rate@seen` of all workers, with semicolons
--   ok|TRIGGER     how many deliveries it has made
--   went|TRIGGER   when something of it was taken last
--   no|TRIGGER     the place of the only delivery in whose requests bodies were refused since then, or * for several; gone = none
--   first|TRIGGER  it was resumed, and a probe of it goes first; as `probing`
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

local function save(call)
  local changed = {}
  for _, name in ipairs(names) do
    if g[name] ~= before[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = NUMBERS[name] and whole(g[name]) or g[name]
    end
  end
  if #changed > 0 then (call or redis.call)('HSET', KEYS[1], unpack(changed)) end
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

-- Outlives a clock that was set back: all that was written down by it moves with it. A script that only reads
-- can't write that; the next one does.
local function steady()
  local step = g.seen - now
  g.seen = now
  if step <= 0 then return end
  for _, name in ipairs(TIMES) do
    if g[name] > 0 then g[name] = g[name] - step end
  end
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    local till = string.sub(name, 1, 6) == 'first|' and tonumber(redis.call('HGET', KEYS[1], name)) or 0
    if till > 0 then redis.pcall('HSET', KEYS[1], name, whole(till - step)) end
  end
  save(redis.pcall)
end
steady()

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

-- The lowest rate that a worker was given lately; `text` is this one's, which is remembered if the record is saved.
local function lowest_rate(text)
  local rate, kept, fresh = tonumber(text), {}, false
  local lowest = rate
  for known, seen in string.gmatch(g.rates, '([^@;]+)@(%d+)') do
    local age, keep = now - tonumber(seen), true
    if tonumber(known) == rate then
      fresh = age >= 0 and age < policy.rates_fresh
      keep = fresh
    else
      keep = age >= 0 and age < policy.rates
    end
    if keep then
      kept[#kept + 1] = known .. '@' .. seen
      lowest = math.min(lowest, tonumber(known))
    end
  end
  if not fresh then
    kept[#kept + 1] = text .. '@' .. whole(now)
    g.rates = table.concat(kept, ';')
  end
  return lowest
end

-- The lowered limit; not below one a minute.
local function in_force_of(limit) return math.max(limit * factor_now() / WHOLE, math.min(limit, 1)) end

-- How many requests may go at once, beyond the first.
local function burst(limit)
  if limit < policy.burst_from then return 0 end
  return math.min(policy.burst_most, math.floor(limit * policy.burst_percent / 100))
end

-- The microseconds between two slots: 60 s / (limit - burst - 1); and so far apart that a minute holds no more than the limit even if
-- each slot is used up to `late` after its time.
local function spacing(limit)
  if limit < 1 then return math.ceil((policy.minute + policy.late) / limit) end
  local regular = math.floor(limit) - burst(limit)
  local late = math.ceil((policy.minute + policy.late) / regular)
  if regular == 1 then return late end
  return math.max(late, math.ceil(policy.minute / (regular - 1)))
end

-- How far behind its regular time a slot may lie: the burst. That of a lowered rate is no longer than that of the full one: a burst on
-- top of what went before would break the limit.
local function tolerance(limit, in_force)
  return math.min(burst(limit) * spacing(limit), burst(in_force) * spacing(in_force))
end

-- Whether the closing holds for a trigger; '' = for all that ever delivered something.
-- A breaker holds for the triggers whose requests have failed, and for no other, unless they are too many to be remembered: one of which
-- nothing failed finds out for itself.
local function concerns(trigger)
  if g.why ~= 'failing' or number_of(g.suspects) >= MOST_SUSPECTS then return true end
  if trigger ~= '' then return has(g.suspects, trigger) end
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 3) == 'ok|' and not has(g.suspects, string.sub(name, 4)) then return false end
  end
  return true
end

-- Whether the next slot goes to a probe: after a closing, a resume, a pause of others.
local function probe_is_due(fingerprint, trigger)
  if g.first == 1 or (g.pause ~= '' and not is_refused(fingerprint)) then return true end
  return g.closed > 0 and concerns(trigger)
end

-- fields_of(kind, first): by trigger, what the record has as `kind|TRIGGER` of the triggers in ARGV from there on.
local MOST_FIELDS = 4000
local function fields_of(kind, first)
  local found = {}
  for from = first, #ARGV, MOST_FIELDS do
    local fields = {}
    for i = from, math.min(from + MOST_FIELDS - 1, #ARGV) do fields[#fields + 1] = kind .. '|' .. ARGV[i] end
    for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do found[ARGV[from + i - 1]] = value end
  end
  return found
end

-- Until when a probe of a resumed trigger is on its way; 0 = it may go, nil = none has to go first.
-- `lapses` holds it of the triggers that the script is about.
local lapses = {}
local function lapse_of(trigger)
  local lapse = lapses[trigger]
  if lapse == nil then lapse = redis.call('HGET', KEYS[1], 'first|' .. trigger) end
  return lapse and tonumber(lapse) or nil
end

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
