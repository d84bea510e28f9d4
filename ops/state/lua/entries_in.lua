#!lua flags=allow-oom
-- Adds entries that come from a stream of another partition, each once: `carried` says which have come. Their ids are kept where
-- nothing newer stands in the stream, or stood in one that was removed; where the last one is of the same millisecond, the next of
-- that millisecond is given.
--
-- KEYS[1] lease  [2] counts  [3] streams  [4] carried  [5] aside  [6] the stream
-- ARGV[1] token  [2] the stream's name: `lane|trigger`
--     then per entry: its mark in `carried`, old id, backoff ("" = none), f, the number of fields; f times: field, value
--
-- Returns how many were added, or -1 if somebody else holds the lease.
--@include _add
--@include _outcomes

local token, floor = unpack(redis.call('HMGET', KEYS[1], 'token', 'floor'))
if token ~= ARGV[1] then return -1 end
local name, added, i = ARGV[2], 0, 3
while i <= #ARGV do
  local mark, old, backoff, after = ARGV[i], ARGV[i + 1], ARGV[i + 2], i + 4 + 2 * tonumber(ARGV[i + 3])
  if redis.call('HSETNX', KEYS[4], mark, '1') == 1 then
    local fields = {unpack(ARGV, i + 4, after - 1)}
    local ms, id = string.match(old, '^%d+'), nil
    if not floor or tonumber(ms) > tonumber(floor) then
      id = redis.pcall('XADD', KEYS[6], old, unpack(fields))
      if type(id) == 'table' then id = redis.pcall('XADD', KEYS[6], ms .. '-*', unpack(fields)) end
    end
    if type(id) ~= 'string' then id = add(KEYS[6], floor, unpack(fields)) end
    note_id(id)
    note_header(fields[2])
    if backoff ~= '' then redis.call('HSET', KEYS[5], name .. '|' .. id, backoff) end
    added = added + 1
  end
  i = after
end
write_age(KEYS[1])
if added > 0 then
  redis.call('SADD', KEYS[3], name)
  count_outcome(KEYS[2], 'accepted', '', name, added)
end
return added
