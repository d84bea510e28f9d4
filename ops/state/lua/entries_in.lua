#!lua flags=allow-oom
-- Adds entries that come from a stream of another destination, each once: `carried` says which have come. Their ids are kept where
-- nothing newer stands in the stream.
--
-- KEYS[1] lease  [2] counts  [3] streams  [4] carried  [5] aside  [6] the stream
-- ARGV[1] token  [2] the stream's name: `lane|trigger`, "" = its entries are no deliveries  [3] name of the old stream  [4] first field  [5] second field ("" = none)
--     then per entry: old id, setback ("" = none), first value, second value
--
-- Returns how many were added, or -1 if somebody else holds the lease.
--@include _outcomes

local PER_ENTRY = 4
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
local name, added = ARGV[2], 0
for i = 6, #ARGV, PER_ENTRY do
  local old = ARGV[i]
  if redis.call('HSETNX', KEYS[4], ARGV[3] .. '|' .. old, '1') == 1 then
    local fields = {ARGV[4], ARGV[i + 2]}
    if ARGV[5] ~= '' then fields[3], fields[4] = ARGV[5], ARGV[i + 3] end
    local id = redis.pcall('XADD', KEYS[6], old, unpack(fields))
    if type(id) == 'table' then id = redis.call('XADD', KEYS[6], '*', unpack(fields)) end
    if ARGV[i + 1] ~= '' then redis.call('HSET', KEYS[5], name .. '|' .. id, ARGV[i + 1]) end
    added = added + 1
  end
end
if name ~= '' and added > 0 then
  redis.call('SADD', KEYS[3], name)
  count_outcome(KEYS[2], 'accepted', '', name, added)
end
return added
