#!lua flags=allow-oom
-- Takes dead letters away: back into a stream, or for good. What is not there any more changes nothing.
--
-- KEYS[1] counts  [2] streams  [3] wakeup  [4] letters  [5] lettertimes  [6] causes  [7] lease  then s streams
-- ARGV[1] s, the number of streams; s names `lane|trigger`
-- then per letter: id, cause, stream in which it died, reason, index of its stream (0 = discard it), header, profile
--
-- Returns {letters taken, wake, then per stream: id of its first and of its last new entry, "" = none}: wake is 1 if something waits
-- now and nobody was woken yet. It is woken backfill, which 3 means.
-- {-1, 0} if the number of partitions has changed.
--@include _add
--@include _outcomes
--@include _renumbered

if is_renumbered(KEYS[7]) then return {-1, 0} end
local FIXED, PER_LETTER = 7, 7
local floor = redis.call('HGET', KEYS[7], 'floor')
local s = tonumber(ARGV[1])

local function forget_one_of(cause)
  if redis.call('HINCRBY', KEYS[6], cause .. '|n', -1) <= 0 then redis.call('HDEL', KEYS[6], cause, cause .. '|n') end
end

local taken, waits, first, last = 0, false, {}, {}
for i = 2 + s, #ARGV, PER_LETTER do
  local id, cause, name, reason, index = unpack(ARGV, i, i + 4)
  if redis.call('HDEL', KEYS[4], id) == 1 then
    taken = taken + 1
    redis.call('ZREM', KEYS[5], id)
    forget_one_of(cause)
    count_outcome(KEYS[1], 'dead', reason, name, -1)
    if index == '0' then
      count_outcome(KEYS[1], 'discarded', '', name, 1)
    else
      local at = tonumber(index)
      last[at] = add(KEYS[FIXED + at], floor, 'h', ARGV[i + 5], 'p', ARGV[i + 6])
      first[at] = first[at] or last[at]
      note_id(last[at])
      note_header(ARGV[i + 5])
      redis.call('SADD', KEYS[2], ARGV[1 + at])
      waits = true
    end
  end
end
write_age(KEYS[7])
local wake = 0
if waits and redis.call('SET', KEYS[3], '3', 'NX') then wake = 1 end
local told = {taken, wake}
for at = 1, s do told[1 + 2 * at], told[2 + 2 * at] = first[at] or '', last[at] or '' end
return told
