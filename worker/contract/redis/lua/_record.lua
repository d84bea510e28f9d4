-- Adds rows to the outcome log, in the script that moves their counts; see `contract.outcomes`. A script that includes this has the keys
-- `outcomes` and `recorded`.
--
-- `recorded` holds how many bytes of rows are kept (`bytes`), and the time from which on no row is missing (`since`, ms; absent = all are
-- there that ever came).
local RECORD_BYTES = 150 -- of an entry, beside its rows
local DROPPED_AT_ONCE = 100 -- entries

-- drop_oldest(before): removes the oldest entry if it is from before a time (ms); returns the bytes that are left, or nothing.
local function drop_oldest(before)
  local entry = redis.call('XRANGE', key_outcomes, '-', '+', 'COUNT', 1)[1]
  local ms = entry and tonumber(string.match(entry[1], '^%d+'))
  if not entry or ms >= before then return end
  redis.call('XDEL', key_outcomes, entry[1])
  redis.call('HSET', key_recorded, 'since', string.format('%.0f', ms + 1))
  return redis.call('HINCRBY', key_recorded, 'bytes', -(#entry[2][2] + RECORD_BYTES))
end

-- record(packed, taken, most): the rows that `taken` has a '1' for, and those behind; no more than `most` bytes stay.
local function record(packed, taken, most)
  local rows = 0
  for _, one in ipairs(taken) do rows = rows + (one == '1' and 1 or 0) end
  if rows == 0 and #taken > 0 then return end
  local entry = {'r', packed}
  if rows < #taken then entry = {'r', packed, 'm', table.concat(taken)} end
  redis.call('XADD', key_outcomes, '*', unpack(entry))
  local kept = redis.call('HINCRBY', key_recorded, 'bytes', #packed + RECORD_BYTES)
  -- Few at once: after `max_bytes` was made much smaller, the rest goes with the next ones.
  for _ = 1, DROPPED_AT_ONCE do
    if not kept or kept <= tonumber(most) then return end
    kept = drop_oldest(math.huge)
  end
end
