#!lua flags=allow-oom
-- Writes ledgers that were merged. Only the holder of the lease writes, so that no drain overwrites them.
--
-- KEYS[1] lease  [2..] ledgers
-- ARGV[1] token  [2..] per ledger: the text, and for how long it is kept (ms; 0 = it never lapses)
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  local text, kept = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if kept == '0' then redis.call('SET', KEYS[i], text) else redis.call('SET', KEYS[i], text, 'PX', kept) end
end
return 1
