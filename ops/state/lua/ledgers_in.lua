#!lua flags=allow-oom
-- Writes ledgers that were merged. Only the holder of the lease writes, so that no drain overwrites them. The time of those that may
-- lapse begins anew: what waits and belongs to them may come later.
--
-- KEYS[1] lease  [2..] ledgers
-- ARGV[1] token  [2] retention of a ledger that may lapse, ms  then per ledger: the text, and 1 if it never lapses, else 0
--
-- Returns 1, or 0 if somebody else holds the lease.
--@include _clock
--@include _lapsing

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  local text, lasting = ARGV[2 * i - 1], ARGV[2 * i] == '1'
  redis.call('SET', KEYS[i], lasting and text or lapsing(ARGV[2]) .. text)
end
return 1
