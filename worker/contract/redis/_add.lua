-- add(stream, floor, field, value, ...): XADD, with an id behind all that were given up to `floor` (ms; false = none were). Streams from
-- which everything was settled are removed, and Redis' clock may be set back: a late command about an old entry would meet a new one.
local function add(stream, floor, ...)
  local id = redis.call('XADD', stream, '*', ...)
  if not floor or tonumber(string.match(id, '^%d+')) > tonumber(floor) then return id end
  redis.call('XDEL', stream, id)
  redis.call('XSETID', stream, floor .. '-18446744073709551615')
  return redis.call('XADD', stream, '*', ...)
end
