#!lua flags=allow-oom
-- Takes dead letters away: back into a stream, or for good. What is not there any more changes nothing.
--
-- ARGV: the names `lane|trigger` of the streams; per letter: id, cause, stream in which it died, reason, index of the stream that it goes to
-- (0 = discard it), header, profile; the rows for the outcome log, and the most bytes that are kept of it. A letter has one row that takes its
-- death back, and a second one if it is discarded.
-- Where nobody asked for it, and letters go because they were kept for long enough: the time (ms) before which they have died, and the
-- time until which that was allowed: one that died anew stays.
--@keys counts streams wakeup dead_letters dead_letter_times causes lease outcomes recorded to...
--@args names... letters_id... letters_cause... letters_stream... letters_reason... letters_to... letters_header... letters_profile... ends... expired...
--
-- Returns {letters taken, wake}: wake is 1 if something waits now and nobody was woken yet. It is woken backfill, which 3 means.
--@include _add
--@include _clock
--@include _outcomes
--@include _record

local floor = redis.call('HGET', key_lease, 'floor')

local function forget_one_of(cause)
  if redis.call('HINCRBY', key_causes, cause .. '|n', -1) <= 0 then redis.call('HDEL', key_causes, cause, cause .. '|n') end
end

local died_before, allowed_until = tonumber(ARGV[at_expired + 1]), tonumber(ARGV[at_expired + 2])
local function may_leave(id)
  if allowed_until and now >= allowed_until then return false end
  local died_ms = died_before and redis.call('ZSCORE', key_dead_letter_times, id)
  return not died_before or (died_ms and tonumber(died_ms) < died_before)
end

local count_taken, waits, taken = 0, false, {}
for i = 1, n_letters_id do
  local id, name, to = ARGV[at_letters_id + i], ARGV[at_letters_stream + i], tonumber(ARGV[at_letters_to + i])
  local gone = may_leave(id) and redis.call('HDEL', key_dead_letters, id) or 0
  taken[#taken + 1] = tostring(gone)
  if to == 0 then taken[#taken + 1] = tostring(gone) end
  if gone == 1 then
    count_taken = count_taken + 1
    redis.call('ZREM', key_dead_letter_times, id)
    forget_one_of(ARGV[at_letters_cause + i])
    count_outcome(key_counts, 'dead', ARGV[at_letters_reason + i], name, -1)
    if to == 0 then
      count_outcome(key_counts, 'discarded', '', name, 1)
      if died_before then redis.call('HINCRBY', key_counts, 'expired|letters', 1) end
    else
      local header = ARGV[at_letters_header + i]
      note_id(add(KEYS[at_to + to], floor, 'h', header, 'p', ARGV[at_letters_profile + i]))
      note_header(header)
      redis.call('SADD', key_streams, ARGV[at_names + to])
      waits = true
    end
  end
end
write_age(key_lease)
record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2])
local wake = 0
if waits and redis.call('SET', key_wakeup, '3', 'NX') then wake = 1 end
return {count_taken, wake}
