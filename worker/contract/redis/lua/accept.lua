#!lua
-- Adds deliveries to one partition: entries, their count, the job's position. All or nothing.
--
-- KEYS[1] counts   KEYS[2] streams   KEYS[3] wakeup   KEYS[4] jobs   KEYS[5] lease   KEYS[6..] one stream each
--     then, for a sync: the members that it knows, the tokens of syncs
--     then, for each sync that will need names: the members that it knows
--     then, for the reader of a job: the jobs' epochs
-- ARGV[1] job ("" = none)   ARGV[2] position in the job's source (a decimal string of 20 digits, "" = none)
-- ARGV[3] n, the number of streams; then n times: the stream's name `lane|trigger`
-- then the name of the sync ("" = none); for a sync: the token of its step, m, then m times: field, value as it was found
--     ("" = there was none), value that it becomes ("" = it goes)
-- then e, the number of names that syncs will need, and e times: the index of the members' key, field, value
-- then the indices of the entries' streams (1-based), and the numbers of their events within the chunk, or of their members (1-based),
--     each separated by spaces; then per entry: header, profile
-- the last two: when the first of the entries was accepted (ms); epoch of the job's reader ("" = it has none)
--
-- The wakeup is 1 if it was woken live work, 3 for backfill: live work does not wait for the turn of the other.
-- KEYS[4] holds the job's position, and under `job|chunk` the numbers of the events that were added at that
-- position. A chunk behind the position adds nothing; the chunk at the position adds what is not among the numbers.
-- A member changes only if it is still as it was found, and its entries are added only if it changes: so a call that is
-- repeated does nothing. A step whose token is not the current one, see `claim.lua`,
-- changes nothing.
-- A name changes nobody whom a run of the sync has seen: its value begins with 0, theirs with the number of the run. A run that
-- sees somebody changes their name also if it came, or came again, since the run looked.
-- A reader of a job adds nothing if the partition is closed to its epoch: see `job_close.lua`.
-- Returns {added, wake, then per stream: id of its first and of its last new entry, "" = none}; {-1} for such a step,
-- {-2} for such a reader; {-3} if the number of partitions is another one by now, or is being changed: nobody reads here.
-- wake is 1 if nobody was woken yet.

--@include _add

local token, floor = unpack(redis.call('HMGET', KEYS[5], 'token', 'floor'))
if string.find(token or '', '^renumbered:') then return {-3} end
local PER_ENTRY = 2
local function is_name(mark) return string.sub(mark, 1, 2) == '0 ' end
local MOST_ARGUMENTS = 4000
local job, position, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
if ARGV[#ARGV] ~= '' then
  local earliest = redis.call('HGET', KEYS[#KEYS], job .. '|epoch')
  if earliest and tonumber(earliest) > tonumber(ARGV[#ARGV]) then return {-2} end
end
local chunk = job .. '|chunk'
local numbers, placed, is_behind = {}, {}, false
if position ~= '' then
  local seen = redis.call('HGET', KEYS[4], job)
  is_behind = seen and seen > position
  if seen == position then
    for number in string.gmatch(redis.call('HGET', KEYS[4], chunk) or '', '[^,]+') do
      placed[number] = true
      numbers[#numbers + 1] = number
    end
  end
end

local at = 5 + n
if ARGV[4 + n] ~= '' then
  local known, m = KEYS[6 + n], tonumber(ARGV[6 + n])
  if redis.call('HGET', KEYS[7 + n], ARGV[4 + n]) ~= ARGV[5 + n] then return {-1} end
  at = 7 + n + 3 * m
  for number = 1, m do
    local field, was, becomes = ARGV[4 + n + 3 * number], ARGV[5 + n + 3 * number], ARGV[6 + n + 3 * number]
    local is = redis.call('HGET', known, field) or ''
    local sees_a_name = is_name(is) and (was == '' or is_name(was)) and becomes ~= '' and not is_name(becomes)
    if is ~= was and not sees_a_name then
      placed[tostring(number)] = true
    elseif becomes == '' then
      redis.call('HDEL', known, field)
    else
      redis.call('HSET', known, field, becomes)
    end
  end
end

local names_end = at + 3 * tonumber(ARGV[at])
for i = at + 1, is_behind and 0 or names_end, 3 do
  local known, field = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  local was = redis.call('HGET', known, field)
  if not was or is_name(was) then redis.call('HSET', known, field, ARGV[i + 2]) end
end
at = names_end + 1

local added, total, live, first, last = {}, 0, false, {}, {}
local next_stream, next_number = string.gmatch(ARGV[at], '%d+'), string.gmatch(ARGV[at + 1], '%d+')
for i = at + 2, is_behind and 0 or #ARGV - 2, PER_ENTRY do
  local s, number = tonumber(next_stream()), next_number()
  if not placed[number] then
    last[s] = add(KEYS[5 + s], not first[s] and floor, 'h', ARGV[i], 'p', ARGV[i + 1])
    first[s] = first[s] or last[s]
    added[s] = (added[s] or 0) + 1
    total = total + 1
    if number ~= numbers[#numbers] then numbers[#numbers + 1] = number end
  end
end

for _, id in pairs(last) do note_id(id) end
note_accepted(tonumber(ARGV[#ARGV - 1]))
write_age(KEYS[5])

-- What was added is counted in few commands, however many streams there are.
local names, fields, count_of = {}, {}, {}
for s, count in pairs(added) do
  local name = ARGV[3 + s]
  local is_live = string.sub(name, 1, 5) == 'live|'
  local field = (is_live and 'accepted|' or 'backfill.accepted|') .. string.match(name, '|(.*)$')
  names[#names + 1] = name
  live = live or is_live
  if not count_of[field] then fields[#fields + 1] = field end
  count_of[field] = (count_of[field] or 0) + count
end
for at = 1, #names, MOST_ARGUMENTS do
  redis.call('SADD', KEYS[2], unpack(names, at, math.min(#names, at + MOST_ARGUMENTS - 1)))
end
if #fields == 1 then redis.call('HINCRBY', KEYS[1], fields[1], count_of[fields[1]]) end
for at = 1, #fields > 1 and #fields or 0, MOST_ARGUMENTS / 2 do
  local till = math.min(#fields, at + MOST_ARGUMENTS / 2 - 1)
  local known, fresh = redis.call('HMGET', KEYS[1], unpack(fields, at, till)), {}
  for i = at, till do
    fresh[#fresh + 1] = fields[i]
    fresh[#fresh + 1] = string.format('%.0f', tonumber(known[i - at + 1] or 0) + count_of[fields[i]])
  end
  redis.call('HSET', KEYS[1], unpack(fresh))
end
if job ~= '' and total > 0 then
  redis.call('HINCRBY', KEYS[1], 'job|' .. job .. '|accepted', total)
  if position ~= '' then redis.call('HSET', KEYS[4], job, position, chunk, table.concat(numbers, ',')) end
end
local wake = 0
if total > 0 then
  local wakeup = redis.call('GET', KEYS[3])
  if not wakeup or (live and wakeup == '3') then
    redis.call('SET', KEYS[3], live and '1' or '3')
    wake = 1
  end
end
local answer = {total, wake}
for s = 1, n do
  answer[#answer + 1] = first[s] or ''
  answer[#answer + 1] = last[s] or ''
end
return answer
