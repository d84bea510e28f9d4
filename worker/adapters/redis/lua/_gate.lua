-- What all scripts of the gate share: what it remembers, its state, how fast requests may go, what stands in their way, and what changes it.
--
-- `g` is the record, `save` writes what has changed of it; the numbers of `policy` stand in `POLICY` of worker/core/gate.py. All times are
-- whole microseconds by Redis' clock, factors are parts per million; whole numbers are written without tostring.
-- The record is the hash of `key_gate`:
--   seen        when it was changed last
--   tat         when the next regular send time would be
--   live        until then a live request waits for its send time
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
--   said        what failed last, for a person
--   unread      answers in a row that could not be read
--   pause       why it is paused; '' = it is not
--   scope       access = only for the credentials in `refused`; all
--   by          who paused it
--   since       when
--   about       for a person: what led to the pause
--   refused     fingerprints of credentials that were refused, with commas
--   rates       `rate@seen` of all workers, with semicolons
--   firsts      the triggers that were resumed, of each of which a probe goes first: `trigger@until`, as `probing`, with commas
--   noes        the triggers of which bodies were refused since something of them was taken: `trigger@place` of the only delivery in whose
--               requests that was, or * for several; with commas
--   ok|TRIGGER  how many deliveries it has made
--   went|TRIGGER  when something of it was taken last
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local WHOLE, MOST_SUSPECTS, MOST_VALUES = 1000000, 20, 4000
-- Numbers come first.
local NAMES, NUMBERS = {'seen', 'tat', 'live', 'factor', 'incident', 'good', 'lowered_at', 'failed', 'failed_at', 'closed', 'closes',
  'first', 'probing', 'failures', 'unread', 'since',
  'why', 'suspects', 'said', 'pause', 'scope', 'by', 'about', 'refused', 'rates', 'firsts', 'noes'}, 16
local g = {seen = 0, tat = 0, live = 0, factor = WHOLE, incident = 0, good = 1, lowered_at = 0, failed = 0, failed_at = 0, closed = 0,
  closes = 0, first = 0, probing = 0, failures = 0, unread = 0, since = 0,
  why = '', suspects = '', said = '', pause = '', scope = '', by = '', about = '', refused = '', rates = '', firsts = '',
  noes = ''}

-- What `g` holds as it is stored; false = it is not. All of it is written at once, so that it stands before the fields of triggers, where
-- Redis finds it soonest.
local stored = redis.call('HMGET', key_gate, unpack(NAMES))
for i = 1, #NAMES do
  if stored[i] and i <= NUMBERS then stored[i] = stored[i] + 0 end -- takes half the time of tonumber
  if stored[i] then g[NAMES[i]] = stored[i] end
end

local function whole(number) return string.format('%d', number) end

-- save(fields): writes these fields, each followed by its value, and what has changed of the record.
local function save(fields, call)
  for i = 1, #NAMES do
    local value = g[NAMES[i]]
    if value ~= stored[i] then
      fields[#fields + 1] = NAMES[i]
      fields[#fields + 1] = i <= NUMBERS and whole(value) or value
    end
  end
  for first = 1, #fields, MOST_VALUES do
    (call or redis.call)('HSET', key_gate, unpack(fields, first, math.min(first + MOST_VALUES - 1, #fields)))
  end
end

-- words_of(text): its words. A request has hundreds of triggers, and each argument takes Redis longer than a word of one.
local function words_of(text)
  local words = {}
  for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
  return words
end

-- values_of(prefix, triggers): what the hash has of each trigger under the field with this prefix, in their order; false = nothing.
local function values_of(prefix, triggers)
  local found = {}
  for first = 1, #triggers, MOST_VALUES do
    local fields = {}
    for i = first, math.min(first + MOST_VALUES - 1, #triggers) do fields[#fields + 1] = prefix .. triggers[i] end
    for _, value in ipairs(redis.call('HMGET', key_gate, unpack(fields))) do found[#found + 1] = value end
  end
  return found
end

-- marks_of(list): by trigger, what stands behind it in `firsts` or `noes`; `list_of` puts it together again. As a rule, both are empty.
local function marks_of(list)
  local marks = {}
  for trigger, mark in string.gmatch(list, '([^@,]+)@([^,]+)') do marks[trigger] = mark end
  return marks
end
local function list_of(marks)
  local all = {}
  for trigger, mark in pairs(marks) do all[#all + 1] = trigger .. '@' .. mark end
  return table.concat(all, ',')
end
local firsts = marks_of(g.firsts)

-- Outlives a clock that was set back: all that was written down by it moves with it. A script that only reads
-- can't write that; the next one does.
local step = g.seen - now
g.seen = now
if step > 0 then
  for _, name in ipairs({'tat', 'live', 'lowered_at', 'failed_at', 'closed', 'probing', 'since'}) do
    if g[name] > 0 then g[name] = g[name] - step end
  end
  for trigger, till in pairs(firsts) do
    if till + 0 > 0 then firsts[trigger] = whole(till - step) end
  end
  g.firsts = list_of(firsts)
  save({}, redis.pcall)
end

local function has(list, name) return string.find(',' .. list .. ',', ',' .. name .. ',', 1, true) ~= nil end

local function number_of(list)
  local _, commas = string.gsub(list, ',', ',')
  return commas + 1
end

local function is_refused(fingerprint) return g.refused ~= '' and has(g.refused, fingerprint) end

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

-- Returns state, reason and message.
local function state_of()
  if g.pause ~= '' then return 'paused', g.pause, g.about end
  if g.why == 'failing' then return 'broken', 'failing', g.said end
  if g.why ~= '' or factor_now() < WHOLE then return 'slowed', 'too_many_requests', '' end
  return 'ok', '', ''
end

-- How fast requests may go.

-- The lowest rate that a worker was given lately; `text` is this one's, which is remembered if the record is saved.
local function lowest_rate(text)
  local rate, kept, fresh = text + 0, {}, false
  local lowest = rate
  for mark, known, seen in string.gmatch(g.rates, '(([^@;]+)@(%d+))') do
    local other, age = known + 0, now - seen
    local keep = age >= 0 and age < (other == rate and policy.rates_fresh or policy.rates)
    if other == rate then fresh = keep end
    if keep then
      kept[#kept + 1] = mark
      lowest = math.min(lowest, other)
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

-- The microseconds between two send times of a limit, and how far behind its regular time a send time may lie.
-- They are 60 s / (limit - burst - 1) apart, where the burst may go at once, beyond the first; and so far that a minute holds no more
-- than the limit even if each send time is used up to `late` after its time.
local function spacing(limit)
  if limit < 1 then return math.ceil((policy.minute + policy.late) / limit), 0 end
  local burst = 0
  if limit >= policy.burst_from then burst = math.min(policy.burst_most, math.floor(limit * policy.burst_percent / 100)) end
  local regular = math.floor(limit) - burst
  local apart = math.ceil((policy.minute + policy.late) / regular)
  if regular > 1 then apart = math.max(apart, math.ceil(policy.minute / (regular - 1))) end
  return apart, burst * apart
end

-- The same of a limit as it is lowered now. Its send times may lie no further behind than those of the full one: a burst on top of what went
-- before would break the limit.
local function lowered_spacing(limit)
  local in_force = in_force_of(limit)
  local apart, behind = spacing(in_force)
  if in_force == limit then return apart, behind end
  local _, most = spacing(limit)
  return apart, math.min(behind, most)
end

-- What stands in the way of a request.

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

-- What reports, pauses and resumptions change.

local function transport_works()
  g.failures, g.suspects, g.said = 0, '', ''
  if g.why == 'failing' then g.closed, g.closes, g.why = 0, 0, '' end
end

local function put_pause(reason, by, about)
  g.pause, g.scope, g.by, g.about = reason, 'all', by, about
  if g.since == 0 then g.since = now end
  g.incident = g.incident + 1
end

-- `since` stays until a request succeeds: a resumption that fails has ended nothing.
local function unpause() g.pause, g.scope, g.by, g.about = '', '', '', '' end
