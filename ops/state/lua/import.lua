#!lua
-- Puts exported letters back. One that is there already changes nothing.
--
-- ARGV: per letter: id, the letter, time of death (ms), cause, sample of the cause, stream in which it died, reason;
--     the rows of the letters for the outcome log, and the most bytes that are kept of it
--@keys counts dead_letters dead_letter_times causes outcomes recorded
--@args letters[id text died cause sample stream reason] ends...
--
-- Returns how many were not there.
--@include _outcomes
--@include _record

local added, taken = 0, {}
for i = 1, n_letters do
  local id, cause, name = ARGV[at_letters_id + i], ARGV[at_letters_cause + i], ARGV[at_letters_stream + i]
  taken[i] = '0'
  if redis.call('HSETNX', key_dead_letters, id, ARGV[at_letters_text + i]) == 1 then
    added = added + 1
    taken[i] = '1'
    redis.call('ZADD', key_dead_letter_times, ARGV[at_letters_died + i], id)
    redis.call('HSETNX', key_causes, cause, ARGV[at_letters_sample + i])
    redis.call('HINCRBY', key_causes, cause .. '|n', 1)
    count_outcome(key_counts, 'accepted', '', name, 1)
    count_outcome(key_counts, 'dead', ARGV[at_letters_reason + i], name, 1)
  end
end
record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2])
return added
