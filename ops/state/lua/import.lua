#!lua
-- Puts exported letters back. One that is there already changes nothing.
--
-- KEYS: those of the partition; what has come from elsewhere (absent: all letters may come); and forwards, if a person's letters come
-- ARGV: per letter: id, the letter, time of death (ms), cause, sample of the cause, stream in which it died, reason;
--     for a person's letters, the digest (hex) and the record without which they may not come;
--     the rows of the letters for the outcome log, none for a person's, and the most bytes that are kept of it
--@keys counts dead_letters dead_letter_times causes outcomes recorded carried? forwards?
--@args letters[id text died cause sample stream reason] person... ends...
--
-- Returns how many were not there; -1 if the person's record is another one by now.
--@include _outcomes
--@include _record

if key_forwards and redis.call('HGET', key_forwards, ARGV[at_person + 1]) ~= ARGV[at_person + 2] then return -1 end
local added, taken = 0, {}
for i = 1, n_letters do
  local id, cause, name = ARGV[at_letters_id + i], ARGV[at_letters_cause + i], ARGV[at_letters_stream + i]
  local comes = not key_carried or redis.call('HSETNX', key_carried, 'letter|' .. id, '1') == 1
  taken[i] = '0'
  if comes and redis.call('HSETNX', key_dead_letters, id, ARGV[at_letters_text + i]) == 1 then
    added = added + 1
    taken[i] = '1'
    redis.call('ZADD', key_dead_letter_times, ARGV[at_letters_died + i], id)
    redis.call('HSETNX', key_causes, cause, ARGV[at_letters_sample + i])
    redis.call('HINCRBY', key_causes, cause .. '|n', 1)
    count_outcome(key_counts, 'accepted', '', name, 1)
    count_outcome(key_counts, 'dead', ARGV[at_letters_reason + i], name, 1)
  end
end
if n_ends > 0 then record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2]) end
return added
