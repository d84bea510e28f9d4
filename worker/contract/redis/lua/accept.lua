#!lua
-- Adds deliveries to one partition: entries, their count, the job's position. All or nothing.
--
-- KEYS: `members` is what the sync of this call knows, `tokens` the tokens of syncs; `named` is what each sync
--     knows that will need names. The first two are absent where there is no sync, `queue` where nobody is woken.
-- ARGV: the job ("" = none) and the position in its source (a decimal string of 20 digits, "" = none); of the sync ("" = none) the
--     token of its step, and for each of its members the value as it was found ("" = there was none) and the one that it becomes
--     ("" = it goes); for each name that a sync will need the index of its key in `named`; the keys' tag; the
--     indices of the entries' streams, and the numbers of their events within the chunk, or of their members, each separated by spaces;
--     when the first of the entries was accepted (ms); the epoch of the job's reader ("" = it has none); the wake-up to leave in `queue`.
--@keys counts streams wakeup jobs epochs lease stream... members... tokens... queue... named...
--@args job position sync token accepted_ms epoch secret claims message entry_streams entry_numbers tag changes_field... changes_was... changes_becomes... names_known... names_field... names_value... entries_header... entries_profile...
--
-- The wakeup is 1 if it was woken live work, 3 for backfill: live work does not wait for the turn of the other.
-- `epochs` holds the epochs of jobs, `jobs` the job's position, and under `job|chunk` the numbers of the events that were added at that
-- position. A chunk behind the position adds nothing; the chunk at the position adds what is not among the numbers.
-- A member changes only if it is still as it was found, and its entries are added only if it changes: so a call that is
-- repeated does nothing. A step whose token is not the current one, see `claim.lua`,
-- changes nothing.
-- A name changes nobody whom a run of the sync has seen: its value begins with 0, theirs with the number of the run. A run that
-- sees somebody changes their name also if it came, or came again, since the run looked.
-- A reader of a job adds nothing if the partition is closed to its epoch: see `job_epochs.lua`.
-- `secret` is the id of the secret with which the entries are sealed ("" = they are open), and `sealed` of the lease the one that whoever
-- claimed this Redis has written there: others add nothing, and with `claims` 1 nobody does where it is missing, since the Redis came back
-- empty.
-- Returns {added, wake, then per stream: id of its first and of its last new entry, "" = none}; {-1} for such a step,
-- {-2} for such a reader; {-3} for another secret.
-- wake is 1 if nobody was woken yet, and the caller has to: where this Redis is Celery's broker as well, `queue` is the queue in which the
-- wake-up is left with the write, and the worker has it as soon as the disk has what was added.

--@include _add

local floor, sealed = unpack(redis.call('HMGET', key_lease, 'floor', 'sealed'))
if (sealed or arg_claims == '1') and sealed ~= arg_secret then return {-3} end
local MOST_ARGUMENTS = 4000
local key_members, key_queue = n_members > 0 and KEYS[at_members + 1], n_queue > 0 and KEYS[at_queue + 1]
local job, position = arg_job, arg_position
if arg_epoch ~= '' then
  local earliest = redis.call('HGET', key_epochs, job .. '|epoch')
  if earliest and tonumber(earliest) > tonumber(arg_epoch) then return {-2} end
end
local chunk = job .. '|chunk'
local numbers, placed, is_behind = {}, {}, false
if position ~= '' then
  local seen = redis.call('HGET', key_jobs, job)
  is_behind = seen and seen > position
  if seen == position then
    for number in string.gmatch(redis.call('HGET', key_jobs, chunk) or '', '[^,]+') do
      placed[number] = true
      numbers[#numbers + 1] = number
    end
  end
end

if key_members and redis.call('HGET', KEYS[at_tokens + 1], arg_sync) ~= arg_token then return {-1} end

-- is_name(mark): whether no run of the sync has seen the person yet.
local function is_name(mark) return string.sub(mark, 1, 2) == '0 ' end

for number = 1, n_changes_field do
  local field = ARGV[at_changes_field + number]
  local was, becomes = ARGV[at_changes_was + number], ARGV[at_changes_becomes + number]
  local is = redis.call('HGET', key_members, field) or ''
  local sees_a_name = is_name(is) and (was == '' or is_name(was)) and becomes ~= '' and not is_name(becomes)
  if is ~= was and not sees_a_name then
    placed[tostring(number)] = true
  elseif becomes == '' then
    redis.call('HDEL', key_members, field)
  else
    redis.call('HSET', key_members, field, becomes)
  end
end

for i = 1, is_behind and 0 or n_names_field do
  local key, field = KEYS[at_named + ARGV[at_names_known + i]], ARGV[at_names_field + i]
  local was = redis.call('HGET', key, field)
  if not was or is_name(was) then redis.call('HSET', key, field, ARGV[at_names_value + i]) end
end

local added, total, live, first, last = {}, 0, false, {}, {}
local next_stream, next_number = string.gmatch(arg_entry_streams, '%d+'), string.gmatch(arg_entry_numbers, '%d+')
local streams, headers, profiles = at_stream, at_entries_header, at_entries_profile
for i = 1, is_behind and 0 or n_entries_header do
  local s, number = tonumber(next_stream()), next_number()
  if not placed[number] then
    last[s] = add(KEYS[streams + s], not first[s] and floor, 'h', ARGV[headers + i], 'p', ARGV[profiles + i])
    first[s] = first[s] or last[s]
    added[s] = (added[s] or 0) + 1
    total = total + 1
    if number ~= numbers[#numbers] then numbers[#numbers + 1] = number end
  end
end

for _, id in pairs(last) do note_id(id) end
note_accepted(tonumber(arg_accepted_ms))
write_age(key_lease)

-- What was added is counted in few commands, however many streams there are.
local names, fields, count_of = {}, {}, {}
local name_at = #arg_tag + #'s:' + 1
for s, count in pairs(added) do
  local name = string.sub(KEYS[at_stream + s], name_at)
  local is_live = string.sub(name, 1, 5) == 'live|'
  local field = (is_live and 'accepted|' or 'backfill.accepted|') .. string.match(name, '|(.*)$')
  names[#names + 1] = name
  live = live or is_live
  if not count_of[field] then fields[#fields + 1] = field end
  count_of[field] = (count_of[field] or 0) + count
end
for from = 1, #names, MOST_ARGUMENTS do
  redis.call('SADD', key_streams, unpack(names, from, math.min(#names, from + MOST_ARGUMENTS - 1)))
end
if #fields == 1 then redis.call('HINCRBY', key_counts, fields[1], count_of[fields[1]]) end
for from = 1, #fields > 1 and #fields or 0, MOST_ARGUMENTS / 2 do
  local till = math.min(#fields, from + MOST_ARGUMENTS / 2 - 1)
  local known, fresh = redis.call('HMGET', key_counts, unpack(fields, from, till)), {}
  for i = from, till do
    fresh[#fresh + 1] = fields[i]
    fresh[#fresh + 1] = string.format('%.0f', tonumber(known[i - from + 1] or 0) + count_of[fields[i]])
  end
  redis.call('HSET', key_counts, unpack(fresh))
end
if job ~= '' and total > 0 then
  redis.call('HINCRBY', key_counts, 'job|' .. job .. '|accepted', total)
  if position ~= '' then redis.call('HSET', key_jobs, job, position, chunk, table.concat(numbers, ',')) end
end
local wake = 0
if total > 0 then
  local wakeup = redis.call('GET', key_wakeup)
  if not wakeup or (live and wakeup == '3') then
    redis.call('SET', key_wakeup, live and '1' or '3')
    -- What was added stays added, also where nothing can be pushed to the queue.
    wake = key_queue and type(redis.pcall('LPUSH', key_queue, arg_message)) == 'number' and 0 or 1
  end
end
local told = {total, wake}
for s = 1, n_stream do
  told[#told + 1] = first[s] or ''
  told[#told + 1] = last[s] or ''
end
return told
