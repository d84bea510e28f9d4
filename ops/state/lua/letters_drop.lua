#!lua flags=allow-oom
-- Discards letters that are on their way to another identity of their person. They have left the counts, and come back as discarded.
--
-- ARGV: per letter: id, stream in which it died, 1 = it has arrived and only its copy is left here; the rows for the
-- outcome log, of which a letter has one that takes its death back and one that discards it, and the most bytes that are kept of it.
--@keys counts lease dead_letters_leaving outcomes recorded
--@args letters[id stream arrived] ends...
--
-- Returns how many there were that had not arrived. What is not there any more changes
-- nothing.
--@include _outcomes
--@include _record

local dropped, taken = 0, {}
for i = 1, n_letters do
  local gone = redis.call('HDEL', key_dead_letters_leaving, ARGV[at_letters_id + i]) == 1
  local counts = gone and ARGV[at_letters_arrived + i] == '0'
  taken[2 * i - 1], taken[2 * i] = counts and '1' or '0', counts and '1' or '0'
  if counts then
    dropped = dropped + 1
    count_outcome(key_counts, 'accepted', '', ARGV[at_letters_stream + i], 1)
    count_outcome(key_counts, 'discarded', '', ARGV[at_letters_stream + i], 1)
  end
end
record(ARGV[at_ends + 1], taken, ARGV[at_ends + 2])
return dropped
