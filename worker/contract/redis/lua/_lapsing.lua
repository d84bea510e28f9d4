-- How long a ledger lasts that may lapse. Redis never removes one by itself: its time to live ends far behind the retention, so that
-- it only tells when it may go, and `lapse.lua` removes it if nothing waits that may be older.
local FAR = 3155760000000 -- a hundred years; `core.ledger.FAR_MS` is the same
-- The ledger outlasts the retention by as much as an event may be ahead of Redis' clock, and as `OLDER_THAN_ITS_ID` allows.
local LEEWAY = 600000

-- write_ledger(key, text, retention): a ledger that may lapse, so many ms after `now`; the same for all of a script.
local far_end
local function write_ledger(key, text, retention)
  far_end = far_end or string.format('%.0f', now + retention + FAR)
  redis.call('SET', key, text, 'PXAT', far_end)
end

-- lapses_at(key): when this ledger may lapse at the earliest (ms); false if it never does, or is not there.
local function lapses_at(key)
  local till = redis.call('PEXPIRETIME', key)
  return till > FAR and till - FAR + LEEWAY
end
