-- Records ends of deliveries as rows, in the script that moves their counts; see `contract.outcomes`. A script that includes this has the
-- keys `outcomes` and `recorded`, which are absent where nothing is recorded.
--
-- `recorded` holds how many rows and bytes were ever added, and of these, how many are gone again (`gone_rows`, `gone_bytes`); up to which
-- entry they are written to files (`written`, the rows up to there `written_rows`); `since`, the time from which on nothing is missing (ms);
-- and how many rows were dropped because there was no room, without being written (`dropped`, at last at `dropped_ms`).
local RECORD_BYTES = 150 -- of an entry, beside its rows
local DROPPED_AT_ONCE = 100 -- entries

-- drop_oldest(): removes the oldest entry; returns the bytes and the rows that were ever added up to it, or nothing if there is none.
local function drop_oldest()
  local entry = redis.call('XRANGE', key_outcomes, '-', '+', 'COUNT', 1)[1]
  if not entry then return end
  local found = {}
  for i = 1, #entry[2], 2 do found[entry[2][i]] = entry[2][i + 1] end
  redis.call('XDEL', key_outcomes, entry[1])
  redis.call('HSET', key_recorded, 'gone_bytes', found.b, 'gone_rows', found.t, 'since', string.format('%.0f', tonumber(string.match(entry[1], '^%d+')) + 1))
  return tonumber(found.b), tonumber(found.t)
end

-- record(packed, taken, most): the rows that `taken` has a '1' for; no more than `most` bytes stay.
local function record(packed, taken, most)
  local rows = 0
  for _, one in ipairs(taken) do rows = rows + (one == '1' and 1 or 0) end
  if rows == 0 then return end
  local size = #packed + RECORD_BYTES
  local all_bytes, all_rows = redis.call('HINCRBY', key_recorded, 'bytes', size), redis.call('HINCRBY', key_recorded, 'rows', rows)
  local entry = {'r', packed, 'n', rows, 't', all_rows, 'b', all_bytes}
  if rows < #taken then entry[9], entry[10] = 'm', table.concat(taken) end
  local id = redis.call('XADD', key_outcomes, '*', unpack(entry))
  redis.call('HSETNX', key_recorded, 'since', (string.match(id, '^%d+')))
  local state = redis.call('HMGET', key_recorded, 'gone_bytes', 'gone_rows', 'written_rows')
  local gone_bytes, gone_rows, written = tonumber(state[1] or 0), tonumber(state[2] or 0), tonumber(state[3] or 0)
  -- Few at once: after `max_bytes` was made much smaller, the rest goes with the next ones.
  for _ = 1, DROPPED_AT_ONCE do
    if all_bytes - gone_bytes <= tonumber(most) then return end
    local bytes_then, rows_then = drop_oldest()
    if not bytes_then then return end
    local lost = rows_then - math.max(gone_rows, math.min(written, rows_then))
    if lost > 0 then
      redis.call('HINCRBY', key_recorded, 'dropped', lost)
      redis.call('HSET', key_recorded, 'dropped_ms', (string.match(id, '^%d+')))
    end
    gone_bytes, gone_rows = bytes_then, rows_then
  end
end
