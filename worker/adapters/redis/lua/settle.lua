#!lua flags=allow-oom
-- Settles deliveries: entries, counts, ledgers, letters, note, all or nothing, and once however often it is called.
--
-- KEYS[1] lease  [2] counts  [3] notes  [4] open  [5] letters  [6] lettertimes  [7] causes  [8] retry  [9] aside
--     [10] streams  [11] history  [12] reached  [13] who  [14] rendering
--     [15] responses  [16] responseslost  [17] jobtimes  [18] orphans  then s streams, then ledgers
-- ARGV[1] token  [2] note id ("" = no request was made)  [3] for how long the intent is open, ms (0 = it is closed)
--     [4] retention of a ledger that may lapse, ms  [5] s, the number of streams; s names `lane|trigger`
-- then the lengths of the ledgers' texts, in the order of their keys, separated by spaces, negative where the ledger never lapses;
--     the texts in one
-- then seven lists, each led by the number of its members:
--     groups:  index of the stream, 1 = they are few, and may be all that is in it, field of counts, ids, indices of the ledgers that
--              tell of them (0 = none; both separated by spaces), the number of letters (0, or one an entry), the letters
--     waits:   trigger, text ("" = forget)
--     asides:  index of the stream, id, text                        (what is not there any more is not remembered)
--     counts:  field, amount                                         (once per request)
--     history: text
--     reached: digest (hex), text
--     responses: record                                              (once per request; the oldest go, counted)
-- A letter is: id, newline, cause, newline, sample of the cause, newline, the letter itself.
--
-- XDEL decides: what it did not remove changes no count and writes no letter. Streams that hold nothing but a group are removed whole,
-- all by one command, and what was in them counts as removed; no id is given again that was in one, see `_add`. A ledger is written
-- once, as its one text says: if a request was made, or an entry that it tells of was removed. Of a request whose intent is gone or
-- open already, nothing is written again.
-- Returns {1, removed, end of the intent (ms, 0 = closed)}; {2, 0, that end} if it had been settled already; {0, 0, 0} if somebody
-- else holds the lease.
--@include _calls
--@include _clock
--@include _counts
--@include _lapsing
--@include _orphans
--@include _outcomes

local token, floor = unpack(redis.call('HMGET', KEYS[1], 'token', 'floor'))
if token ~= ARGV[1] then return {0, 0, 0} end
local note, open_for, retention = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local opened = note ~= '' and redis.call('HGET', KEYS[4], note)
if note ~= '' and (opened or redis.call('HEXISTS', KEYS[3], note) == 0) then return {2, 0, tonumber(opened or 0)} end

local FIXED = 18
local s = tonumber(ARGV[5])
local at = 8 + s
local function list(width)
  local first, n = at + 1, tonumber(ARGV[at])
  at = first + n * width
  local i = first - width
  return function()
    i = i + width
    if i < at then return i end
  end
end
local function stream_of(index) return KEYS[FIXED + tonumber(index)], ARGV[5 + tonumber(index)] end

local removed, touched, told = 0, {}, {}
local any_aside, any_orphans = redis.call('EXISTS', KEYS[9]) == 1, redis.call('EXISTS', KEYS[18]) == 1
local function bury(text)
  local id, cause, sample, letter = string.match(text, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  redis.call('HSET', KEYS[5], id, letter)
  redis.call('ZADD', KEYS[6], now, id)
  redis.call('HSETNX', KEYS[7], cause, sample)
  redis.call('HINCRBY', KEYS[7], cause .. '|n', 1)
end
local function count_for_job(job, kind, reason, gone)
  count('job|' .. job .. '|' .. kind, gone)
  if reason then count('job|' .. job .. '|' .. kind .. '|' .. reason, gone) end
  redis.call('HINCRBY', KEYS[17], string.format('%s|%d|%s', job, math.floor(now / 60000), kind), gone)
  redis.call('PEXPIRE', KEYS[17], retention)
end
-- Whether it does not matter which entries of a group were there, only how many.
local function are_alike(tellers, letters)
  return letters == 0 and not any_aside and not any_orphans and (note ~= '' or not string.find(tellers, '[1-9]'))
end
local function ids_in(text)
  local ids = {}
  for id in string.gmatch(text, '%S+') do ids[#ids + 1] = id end
  return ids
end
local function settle_group(group, gone, ids)
  if gone == 0 then return end
  if any_orphans then count_down(KEYS[18], group.name, ids) end
  removed = removed + gone
  count(group.field, gone)
  local job = job_of(group.name)
  if job then count_for_job(job, string.match(group.field, '(%a+)|'), string.match(group.field, '^[^|]*|[^|]*|(.+)$'), gone) end
end
local function remove_alike(group)
  local gone = call_with_all('XDEL', group.stream, ids_in(group.ids))
  if gone > 0 then touched[group.name] = group.stream end
  settle_group(group, gone)
end
local few = {}
local groups = tonumber(ARGV[at])
at = at + 1
for _ = 1, groups do
  local group = {field = ARGV[at + 2], ids = ARGV[at + 3]}
  group.stream, group.name = stream_of(ARGV[at])
  local letters = tonumber(ARGV[at + 5])
  if not are_alike(ARGV[at + 4], letters) then
    local index, entry, ids = string.gmatch(ARGV[at + 4], '%d+'), 0, {}
    for id in string.gmatch(group.ids, '%S+') do
      entry = entry + 1
      local teller = tonumber(index())
      if redis.call('XDEL', group.stream, id) == 1 then
        ids[#ids + 1] = id
        touched[group.name] = group.stream
        told[teller] = true
        if any_aside then redis.call('HDEL', KEYS[9], group.name .. '|' .. id) end
        if letters > 0 then bury(ARGV[at + 5 + entry]) end
      end
    end
    settle_group(group, #ids, ids)
  elseif ARGV[at + 1] == '1' then
    few[#few + 1] = group
  else
    remove_alike(group)
  end
  at = at + 6 + letters
end

-- entries_at_most(most, streams): the first entries of each stream that has any, by its key.
local function entries_at_most(most, streams)
  local found = {}
  for first = 1, #streams, MOST_VALUES / 2 do
    local words = {unpack(streams, first, math.min(first + MOST_VALUES / 2 - 1, #streams))}
    for i = 1, #words do words[#words + 1] = '0' end
    for _, row in ipairs(redis.call('XREAD', 'COUNT', most, 'STREAMS', unpack(words)) or {}) do found[row[1]] = row[2] end
  end
  return found
end
local empty, whole = {}, {}
local function remove_few()
  local streams, most = {}, 1
  for i, group in ipairs(few) do
    streams[i] = group.stream
    group.wanted = {}
    for n, id in ipairs(ids_in(group.ids)) do
      group.wanted[id] = true
      most = math.max(most, n + 1)
      floor = math.max(tonumber(floor or now), tonumber(string.match(id, '^%d+')))
    end
  end
  local found = entries_at_most(most, streams)
  for _, group in ipairs(few) do
    local entries, is_whole = found[group.stream] or {}, true
    for _, entry in ipairs(entries) do is_whole = is_whole and group.wanted[entry[1]] end
    if not is_whole then
      remove_alike(group)
    elseif #entries > 0 then
      whole[#whole + 1], empty[#empty + 1] = group.stream, group.name
      settle_group(group, #entries)
    end
  end
end
if #few > 0 then remove_few() end
if #whole > 0 then
  for first = 1, #whole, MOST_VALUES do redis.call('UNLINK', unpack(whole, first, math.min(first + MOST_VALUES - 1, #whole))) end
  redis.call('HSET', KEYS[1], 'floor', string.format('%.0f', math.max(now, floor)))
end
local names, streams = {}, {}
for name, stream in pairs(touched) do names[#names + 1], streams[#streams + 1] = name, stream end
local left = entries_at_most(1, streams)
for i, stream in ipairs(streams) do
  if not left[stream] then empty[#empty + 1] = names[i] end
end
call_with_all('SREM', KEYS[10], empty)

-- A request that was made is told to the ledger even if somebody took its deliveries back meanwhile.
local first, number, lasting_texts = 1, 0, {}
for lasting, length in string.gmatch(ARGV[6 + s], '(%-?)(%d+)') do
  number = number + 1
  local after = first + tonumber(length)
  if note ~= '' or told[number] then
    local key, text = KEYS[FIXED + s + number], string.sub(ARGV[7 + s], first, after - 1)
    if lasting == '' then
      write_ledger(key, text, retention)
    else
      lasting_texts[#lasting_texts + 1], lasting_texts[#lasting_texts + 2] = key, text
    end
  end
  first = after
end
for from = 1, #lasting_texts, MOST_VALUES do
  redis.call('MSET', unpack(lasting_texts, from, math.min(from + MOST_VALUES - 1, #lasting_texts)))
end

local till = 0
local opens = note ~= '' and open_for > 0
for i in list(2) do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[8], ARGV[i]) else redis.call('HSET', KEYS[8], ARGV[i], ARGV[i + 1]) end
end
for i in list(3) do
  local stream, name = stream_of(ARGV[i])
  local id = ARGV[i + 1]
  if #redis.call('XRANGE', stream, id, id) > 0 then redis.call('HSET', KEYS[9], name .. '|' .. id, ARGV[i + 2]) end
end
for i in list(2) do
  if note ~= '' or removed > 0 then count(ARGV[i], tonumber(ARGV[i + 1])) end
end
write_counts(KEYS[2])
for i in list(1) do redis.call('XADD', KEYS[11], 'MAXLEN', '~', 5000, '*', 'e', ARGV[i]) end

-- Digests are random: the smallest of all that were ever reached are an even sample of them.
local REACHED_KEPT = 1000
local kept = redis.call('ZCARD', KEYS[12])
local largest = kept >= REACHED_KEPT and redis.call('ZRANGE', KEYS[12], -1, -1)[1]
local reached, known_by = {}, {}
for i in list(2) do
  local digest = ARGV[i]
  if not largest or digest <= largest then
    reached[#reached + 1], reached[#reached + 2] = 0, digest
    known_by[#known_by + 1], known_by[#known_by + 2] = digest, ARGV[i + 1]
  end
end
kept = kept + call_with_all('ZADD', KEYS[12], reached)
call_with_all('HSET', KEYS[13], known_by)
if kept > 0 then
  redis.call('PEXPIRE', KEYS[12], retention)
  redis.call('PEXPIRE', KEYS[13], retention)
end
if kept > REACHED_KEPT then
  local gone = {}
  for i, part in ipairs(redis.call('ZPOPMAX', KEYS[12], kept - REACHED_KEPT)) do
    if i % 2 == 1 then gone[#gone + 1] = part end -- behind each member stands its score
  end
  call_with_all('HDEL', KEYS[13], gone)
end

local RESPONSES_KEPT = 10000
local responses = 0
for i in list(1) do
  if note ~= '' or removed > 0 then
    redis.call('XADD', KEYS[15], '*', 'r', ARGV[i])
    responses = responses + 1
  end
end
local lost = responses > 0 and redis.call('XTRIM', KEYS[15], 'MAXLEN', '~', RESPONSES_KEPT) or 0
if lost > 0 then redis.call('INCRBY', KEYS[16], lost) end

if opens then
  till = now + open_for
  redis.call('HSET', KEYS[4], note, string.format('%.0f', till))
elseif note ~= '' then
  redis.call('HDEL', KEYS[3], note)
end
redis.call('DEL', KEYS[14])
return {1, removed, till}
