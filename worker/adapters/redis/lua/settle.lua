#!lua flags=allow-oom
-- Settles deliveries: entries, counts, ledgers, dead letters, intent, all or nothing, and once however often it is called.
--
-- KEYS: those of the partition, then the streams and the ledgers that it is about.
-- ARGV: the token; the intent ("" = no request was made), and for how long it is open, ms (0 = it is closed); how long a ledger is kept
--     that may lapse, ms; the lengths of the ledgers' texts, in the order of their keys, separated by spaces, negative where the ledger
--     never lapses; the texts in one; the keys' tag
--   groups   of entries: index of the stream; 1 = they may be the last in it, 2 = so, and they are few; the number of its dead letters (0, or
--            one an entry); field of counts (separated by spaces), and the ids, separated by spaces. If there is no intent, `=` and the index
--            of the ledger that tells of an entry stand behind its id, where one does. They are few arguments, since each takes Redis longer
--            than to take a text apart
--   deaths   the dead letters of all groups
--   waits    trigger, text ("" = forget)
--   asides   index of the stream, id, text           (what is not there any more is not remembered)
--   adds     field of counts, amount                  (once per request)
--   people   that were reached: digest (hex), text
--   records  of responses                             (once per request; the oldest go, counted)
--   ends     the packed rows of all entries of all groups for the outcome log, then those about tries, and the most bytes that are kept of it
--@keys lease counts intents open dead_letters dead_letter_times causes retry aside streams reached who rendering responses responseslost outcomes recorded stream... ledger...
--@args token intent open_ms retention ledger_lengths ledger_texts tag groups_about... groups_ids... deaths... waits_trigger... waits_text... asides_stream... asides_id... asides_text... adds_field... adds_amount... people_digest... people_text... records... ends...
-- A dead letter is: id, newline, cause, newline, sample of the cause, newline, the dead letter itself.
--
-- XDEL decides: what it did not remove changes no count and writes no dead letter. A stream that a group of few entries leaves empty is
-- removed, and no id is given again that was in one, see `_add`. A ledger is written once, as its one text says: if a request was made, or
-- an entry that it tells of was removed. Of a request whose intent is gone or open already, nothing is written again.
-- Returns {1, removed, end of the intent (ms, 0 = closed)}; {2, 0, that end} if it had been settled already; {0, 0, 0} if somebody
-- else holds the lease.
--@include _clock
--@include _lapsing
--@include _outcomes
--@include _record

-- call_with_all(command, key, values): calls a command with many values, as often as Lua's `unpack` asks for; returns the sum of its answers.
local MOST_VALUES = 4000
local function call_with_all(command, key, values)
  local sum = 0
  for first = 1, #values, MOST_VALUES do
    sum = sum + redis.call(command, key, unpack(values, first, math.min(first + MOST_VALUES - 1, #values)))
  end
  return sum
end

-- Counts of a hash that a script adds to: collected first, then written by two commands, however many they are.
local collected, counted_fields = {}, {}
local function count(field, amount)
  if not collected[field] then counted_fields[#counted_fields + 1] = field end
  collected[field] = (collected[field] or 0) + amount
end
local function write_counts(key)
  local MOST_FIELDS = 2000 -- of a call of Lua's `unpack`
  for first = 1, #counted_fields, MOST_FIELDS do
    local last = math.min(first + MOST_FIELDS - 1, #counted_fields)
    local sums = {}
    for i, known in ipairs(redis.call('HMGET', key, unpack(counted_fields, first, last))) do
      local field = counted_fields[first + i - 1]
      sums[2 * i - 1], sums[2 * i] = field, string.format('%d', (tonumber(known) or 0) + collected[field])
    end
    redis.call('HSET', key, unpack(sums))
  end
end

local token, floor, taken_back = unpack(redis.call('HMGET', key_lease, 'token', 'floor', 'taken_back'))
if token ~= arg_token then return {0, 0, 0} end
local intent, open_for, retention = arg_intent, tonumber(arg_open_ms), arg_retention
local opened = intent ~= '' and redis.call('HGET', key_open, intent)
if intent ~= '' and (opened or redis.call('HEXISTS', key_intents, intent) == 0) then return {2, 0, tonumber(opened or 0)} end

-- stream_of(index): the key of a stream, and its name `lane|trigger`.
local name_at = #arg_tag + #'s:' + 1
local function stream_of(index)
  local key = KEYS[at_stream + index]
  return key, string.sub(key, name_at)
end

local removed, touched, told = 0, {}, {}
local any_aside = redis.call('EXISTS', key_aside) == 1
local function bury(text)
  local id, cause, sample, dead_letter = string.match(text, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  redis.call('HSET', key_dead_letters, id, dead_letter)
  redis.call('ZADD', key_dead_letter_times, now, id)
  redis.call('HSETNX', key_causes, cause, sample)
  redis.call('HINCRBY', key_causes, cause .. '|n', 1)
end
local function count_for_job(job, kind, reason, gone)
  count('job|' .. job .. '|' .. kind, gone)
  if reason then count('job|' .. job .. '|' .. kind .. '|' .. reason, gone) end
end
-- Whether it does not matter which entries of a group were there, only how many.
local function are_alike(ids, dead_letters)
  return dead_letters == 0 and not any_aside and not string.find(ids, '=', 1, true)
end
local function ids_in(text)
  local ids = {}
  for id in string.gmatch(text, '%S+') do ids[#ids + 1] = id end
  return ids
end
local function settle_group(group, gone)
  if group.last ~= '0' then touched[group.name] = group.stream end
  if gone == 0 then return end
  removed = removed + gone
  count(group.field, gone)
  local job = job_of(group.name)
  if job then count_for_job(job, string.match(group.field, '(%a+)|'), string.match(group.field, '^[^|]*|[^|]*|(.+)$'), gone) end
end
-- By the number of each entry over all groups: '1' = it was removed, '0' = it was not there.
local taken, entries_before = {}, 0
-- Only `take_back.lua` removes entries beside this script, so where it did not for a day, which no lease and no intent outlasts, either
-- all entries of a group are there or none is, and one call asks for all: a call for each takes twice as long. Where Redis lost its newest
-- writes, some may be missing: the counts are of what was there, and the rows and ledgers of the others tell of a request that was made.
local may_lack_some = taken_back and math.abs(now - tonumber(taken_back)) < 86400000
local function remove_alike(group)
  local ids, gone = group.entries, 0
  local step = may_lack_some and 1 or #ids
  for first = 1, #ids, step do
    local found = call_with_all('XDEL', group.stream, step == 1 and {ids[first]} or ids)
    gone = gone + found
    for n = first, found > 0 and first + step - 1 or 0 do taken[group.before + n] = '1' end
  end
  settle_group(group, gone)
end
-- The names of streams of which few entries are settled: if that leaves them empty they are removed, and no id up to this floor is given
-- again. It never goes back, though the clock may.
local few, floor_now = {}, math.max(now, tonumber(floor or now))
local dead_letters_before = at_deaths
for at = 1, n_groups_about do
  local index, last, deaths, field = string.match(ARGV[at_groups_about + at], '^(%d+) (%d) (%d+) (.*)$')
  local stream, name = stream_of(index)
  local group = {stream = stream, name = name, field = field, last = last, ids = ARGV[at_groups_ids + at]}
  local dead_letters = tonumber(deaths)
  group.entries, group.before = ids_in(group.ids), entries_before
  entries_before = entries_before + #group.entries
  for n = 1, #group.entries do taken[group.before + n] = '0' end
  if not are_alike(group.ids, dead_letters) then
    local entry, gone = 0, 0
    for id, teller in string.gmatch(group.ids, '([%d-]+)=?(%d*)') do
      entry = entry + 1
      if redis.call('XDEL', group.stream, id) == 1 then
        gone = gone + 1
        taken[group.before + entry] = '1'
        if teller ~= '' then told[tonumber(teller)] = true end
        if any_aside then redis.call('HDEL', key_aside, group.name .. '|' .. id) end
        if dead_letters > 0 then bury(ARGV[dead_letters_before + entry]) end
      end
    end
    settle_group(group, gone)
  else
    remove_alike(group)
    if group.last == '2' then
      few[group.name] = true
      for ms in string.gmatch(group.ids, '(%d+)%-%d+') do floor_now = math.max(floor_now, tonumber(ms)) end
    end
  end
  dead_letters_before = dead_letters_before + dead_letters
end

-- heads_of(streams): the first entry of each stream that has any, by its key.
local function heads_of(streams)
  local found = {}
  for first = 1, #streams, MOST_VALUES / 2 do
    local words = {unpack(streams, first, math.min(first + MOST_VALUES / 2 - 1, #streams))}
    for i = 1, #words do words[#words + 1] = '0' end
    for _, row in ipairs(redis.call('XREAD', 'COUNT', 1, 'STREAMS', unpack(words)) or {}) do found[row[1]] = row[2] end
  end
  return found
end
local names, streams = {}, {}
for name, stream in pairs(touched) do names[#names + 1], streams[#streams + 1] = name, stream end
local left, empty, unneeded = heads_of(streams), {}, {}
for i, stream in ipairs(streams) do
  if not left[stream] then
    empty[#empty + 1] = names[i]
    if few[names[i]] then unneeded[#unneeded + 1] = stream end
  end
end
for first = 1, #unneeded, MOST_VALUES do
  redis.call('UNLINK', unpack(unneeded, first, math.min(first + MOST_VALUES - 1, #unneeded)))
end
if #unneeded > 0 then redis.call('HSET', key_lease, 'floor', string.format('%.0f', floor_now)) end
call_with_all('SREM', key_streams, empty)

-- A request that was made is told to the ledger even if somebody took its deliveries back meanwhile.
local first, number, texts, may_lapse = 1, 0, {}, lapsing(retention)
for lasting, length in string.gmatch(arg_ledger_lengths, '(%-?)(%d+)') do
  number = number + 1
  local after = first + tonumber(length)
  if intent ~= '' or told[number] then
    local text = string.sub(arg_ledger_texts, first, after - 1)
    texts[#texts + 1], texts[#texts + 2] = KEYS[at_ledger + number], lasting == '' and may_lapse .. text or text
  end
  first = after
end
for from = 1, #texts, MOST_VALUES do redis.call('MSET', unpack(texts, from, math.min(from + MOST_VALUES - 1, #texts))) end

local till = 0
local opens = intent ~= '' and open_for > 0
for i = 1, n_waits_trigger do
  local trigger, text = ARGV[at_waits_trigger + i], ARGV[at_waits_text + i]
  if text == '' then redis.call('HDEL', key_retry, trigger) else redis.call('HSET', key_retry, trigger, text) end
end
for i = 1, n_asides_id do
  local stream, name = stream_of(ARGV[at_asides_stream + i])
  local id = ARGV[at_asides_id + i]
  if #redis.call('XRANGE', stream, id, id) > 0 then redis.call('HSET', key_aside, name .. '|' .. id, ARGV[at_asides_text + i]) end
end
for i = 1, (intent ~= '' or removed > 0) and n_adds_field or 0 do count(ARGV[at_adds_field + i], tonumber(ARGV[at_adds_amount + i])) end
write_counts(key_counts)
if n_ends > 0 then record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2]) end

-- Digests are random: the smallest of all that were ever reached are an even sample of them.
local REACHED_KEPT = 1000
local kept = redis.call('ZCARD', key_reached)
local largest = kept >= REACHED_KEPT and redis.call('ZRANGE', key_reached, -1, -1)[1]
local reached, known_by = {}, {}
for i = 1, n_people_digest do
  local digest = ARGV[at_people_digest + i]
  if not largest or digest <= largest then
    reached[#reached + 1], reached[#reached + 2] = 0, digest
    known_by[#known_by + 1], known_by[#known_by + 2] = digest, ARGV[at_people_text + i]
  end
end
kept = kept + call_with_all('ZADD', key_reached, reached)
call_with_all('HSET', key_who, known_by)
if kept > 0 then
  redis.call('PEXPIRE', key_reached, retention)
  redis.call('PEXPIRE', key_who, retention)
end
if kept > REACHED_KEPT then
  local gone = {}
  for i, part in ipairs(redis.call('ZPOPMAX', key_reached, kept - REACHED_KEPT)) do
    if i % 2 == 1 then gone[#gone + 1] = part end -- behind each member stands its score
  end
  call_with_all('HDEL', key_who, gone)
end

local RESPONSES_KEPT = 10000
local responses = (intent ~= '' or removed > 0) and n_records or 0
for i = 1, responses do redis.call('XADD', key_responses, '*', 'r', ARGV[at_records + i]) end
local lost = responses > 0 and redis.call('XTRIM', key_responses, 'MAXLEN', '~', RESPONSES_KEPT) or 0
if lost > 0 then redis.call('INCRBY', key_responseslost, lost) end

if opens then
  till = now + open_for
  redis.call('HSET', key_open, intent, string.format('%.0f', till))
elseif intent ~= '' then
  redis.call('HDEL', key_intents, intent)
end
redis.call('DEL', key_rendering)
return {1, removed, till}
