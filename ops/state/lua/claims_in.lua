#!lua flags=allow-oom
-- Adds the stable ids that came with identities, which come from another partition: a list that is there gets what it lacks.
--
-- KEYS[1] lease  [2..] lists, see stable_claims.lua
-- ARGV[1] token  then per list: the text, and for how long it is kept (ms; 0 = without an end)
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
  local text, kept = ARGV[2 * i - 2], tonumber(ARGV[2 * i - 1])
  local known = redis.call('GET', KEYS[i])
  if not known then
    redis.call('SET', KEYS[i], text)
    if kept > 0 then redis.call('PEXPIRE', KEYS[i], kept) end
  else
    local left = redis.call('PTTL', KEYS[i])
    redis.call('SET', KEYS[i], joined(known, text), 'KEEPTTL')
    if kept == 0 then redis.call('PERSIST', KEYS[i])
    elseif left >= 0 and left < kept then redis.call('PEXPIRE', KEYS[i], kept) end
  end
end
return 1
