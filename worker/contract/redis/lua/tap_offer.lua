#!lua
-- Gives what a process has for those who watch to them; whoever has gone meanwhile gets nothing, so that nothing stays of him.
--
-- It has no `allow-oom`: a full Redis takes no record, and nobody waits for one.
-- KEYS: the hash of `_tap.lua`, and the stream of each watch.
-- ARGV: how many records a stream holds; for how long a watch lasts, ms; of each watch its id, how many records it gets, and how much
-- was left out; the records of the first watch, of the second, …
--@keys taps streams...
--@args kept lapse watches[id count left] records...
--
-- Returns how many of the watches are there.
--@include _tap
local lapse, at, there = tonumber(arg_lapse), 0, 0
for i = 1, n_watches do
  local id, count, left = ARGV[at_watches_id + i], tonumber(ARGV[at_watches_count + i]), ARGV[at_watches_left + i]
  if tap_lasts(key_taps, id, lapse) then
    local stream = KEYS[at_streams + i]
    for each = at + 1, at + count do
      redis.call('XADD', stream, 'MAXLEN', '~', arg_kept, '*', 'r', ARGV[at_records + each])
    end
    if count > 0 then
      redis.call('PEXPIRE', stream, arg_lapse)
      redis.call('HINCRBY', key_taps, id .. '|sent', count)
    end
    if left ~= '0' then redis.call('HINCRBY', key_taps, id .. '|left', left) end
    there = there + 1
  end
  at = at + count
end
return there
