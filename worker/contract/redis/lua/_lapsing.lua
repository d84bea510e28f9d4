-- How long a ledger lasts that may lapse. Redis removes none by itself: the text of such a ledger begins with a byte with which no other
-- begins, and with the time when its retention ends (ms, 6 bytes). `lapse.lua` removes it if nothing waits that may be older. Without a
-- time to live, all ledgers of a request are written by one command.
local LAPSING = 2 -- `contract.ledger.LAPSING_FORMAT` is the same
-- The ledger outlasts the retention by as much as an event may be ahead of Redis' clock, and as `OLDER_THAN_ITS_ID` allows.
local LEEWAY = 600000

-- lapsing(retention): the beginning of a ledger that may lapse so many ms after `now`.
local function lapsing(retention) return struct.pack('>BI6', LAPSING, now + retention) end

-- lapses_at(key): when this ledger may lapse at the earliest (ms); false if it never does, or is not there.
local function lapses_at(key)
  local head = redis.call('GETRANGE', key, 0, 6)
  if #head < 7 or string.byte(head) ~= LAPSING then return false end
  return struct.unpack('>I6', head, 2) + LEEWAY
end
