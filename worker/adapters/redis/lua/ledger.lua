#!lua flags=allow-oom
-- Reads ledgers, and writes down what their reader will render, so that a death while rendering can be told.
--
-- KEYS[1] lease  [2] rendering  [3..] ledgers
-- ARGV[1] token  [2] what will be rendered: JSON, "" = nothing
--
-- Returns {1, ledger, …} (false where there is none), or {0} if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return {0} end
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2]) end
local answer = {1}
for first = 3, #KEYS, 4000 do
  local values = redis.call('MGET', unpack(KEYS, first, math.min(first + 3999, #KEYS)))
  for i = 1, #values do answer[#answer + 1] = values[i] end
end
return answer
