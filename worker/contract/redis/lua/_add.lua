-- add(stream, floor, field, value, ...): XADD, with an id behind all that were given up to `floor` (ms; false = none were). Streams from
-- which everything was settled are removed, and Redis' clock may be set back: a late command about an old entry would meet a new one.
local function add(stream, floor, ...)
  local id = redis.call('XADD', stream, '*', ...)
  if not floor or tonumber(string.match(id, '^%d+')) > tonumber(floor) then return id end
  redis.call('XDEL', stream, id)
  redis.call('XSETID', stream, floor .. '-18446744073709551615')
  return redis.call('XADD', stream, '*', ...)
end

-- An entry's id tells when it was accepted, and so which ledgers have to last for it, see `lapse.lua`. That is not so for what came back
-- from the dead letters, was moved, or stood with a producer for long, and where Redis' clock was set back. The lease's record says
-- since when such entries may have waited (`aged`), and up to which id there are any (`aged_until`).
local OLDER_THAN_ITS_ID = 300000
local LONGEST_END = 20
local earliest, latest

-- note_accepted(ms): when an entry that is added was accepted, or the first of them.
local function note_accepted(ms)
  if not earliest or ms < earliest then earliest = ms end
end

-- note_header(header): the same from a header, which ends with that time and how often it was replayed.
local function note_header(header)
  note_accepted(tonumber(string.match(string.sub(header, -LONGEST_END), '(%d+),%d+%]$') or 0))
end

-- note_id(id): of each entry that is added, or of the last one in each stream.
local function note_id(id)
  local added = tonumber(string.match(id, '^%d+'))
  if not latest or added > latest then latest = added end
end

-- write_age(lease): writes what was noted, if it matters.
local function write_age(lease)
  if not latest or latest - earliest <= OLDER_THAN_ITS_ID then return end
  local aged, till = unpack(redis.call('HMGET', lease, 'aged', 'aged_until'))
  redis.call('HSET', lease, 'aged', string.format('%.0f', math.min(earliest, tonumber(aged or earliest))),
    'aged_until', string.format('%.0f', math.max(latest, tonumber(till or 0))))
end
