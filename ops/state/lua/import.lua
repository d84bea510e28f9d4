#!lua
-- Puts exported letters back. One that is there already changes nothing.
--
-- KEYS[1] counts  [2] letters  [3] dead_letter_times  [4] causes  [5] lease  [6] what has come from elsewhere; without it, all may  [7] forwards, if a person's letters come
-- ARGV per letter: id, the letter, time of death (ms), cause, sample of the cause, stream in which it died, reason
-- then, for a person's letters, the digest (hex) and the record without which they may not come
--
-- Returns how many were not there; -1 if the person's record is another one by now, -2 if the number of partitions has changed.
--@include _outcomes
--@include _renumbered

if is_renumbered(KEYS[5]) then return -2 end
local PER_LETTER, last = 7, #ARGV
if KEYS[7] then
  if redis.call('HGET', KEYS[7], ARGV[last - 1]) ~= ARGV[last] then return -1 end
  last = last - 2
end
local added = 0
for i = 1, last, PER_LETTER do
  local id, letter, died, cause, sample, name, reason = unpack(ARGV, i, i + PER_LETTER - 1)
  local comes = not KEYS[6] or redis.call('HSETNX', KEYS[6], 'letter|' .. id, '1') == 1
  if comes and redis.call('HSETNX', KEYS[2], id, letter) == 1 then
    added = added + 1
    redis.call('ZADD', KEYS[3], died, id)
    redis.call('HSETNX', KEYS[4], cause, sample)
    redis.call('HINCRBY', KEYS[4], cause .. '|n', 1)
    count_outcome(KEYS[1], 'accepted', '', name, 1)
    count_outcome(KEYS[1], 'dead', reason, name, 1)
  end
end
return added
