#!lua flags=allow-oom
-- Adds what is known of stable ids, which comes from another partition: a record that is there stays, and a list gets what it lacks.
--
-- KEYS[1] lease  [2..] records, or lists, see stable_seen.lua and stable_claims.lua
-- ARGV[1] token  [2] `records` or `lists`  then per key: the text, and for how long it is kept (ms; 0 = without an end)
--
-- Returns 1, or 0 if somebody else holds the lease.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end

local function joined(known, text)
  for stable in string.gmatch(text, '%S+') do
    if not string.find(known, stable, 1, true) then known = known .. ' ' .. stable end
  end
  return known
end

for i = 2, #KEYS do
  local text, kept = ARGV[2 * i - 1], tonumber(ARGV[2 * i])
  local known = redis.call('GET', KEYS[i])
  if not known then
    redis.call('SET', KEYS[i], text)
    if kept > 0 then redis.call('PEXPIRE', KEYS[i], kept) end
  elseif ARGV[2] == 'lists' then
    local left = redis.call('PTTL', KEYS[i])
    redis.call('SET', KEYS[i], joined(known, text), 'KEEPTTL')
    if kept == 0 then redis.call('PERSIST', KEYS[i])
    elseif left >= 0 and left < kept then redis.call('PEXPIRE', KEYS[i], kept) end
  end
end
return 1
