#!lua flags=allow-oom
-- Takes the lease of a partition, if it is free, and returns all that its holder has to know.
--
-- KEYS: those of the partition.
-- ARGV: the token; the length of the lease, ms; its owner, for people; for how long an intent is open at most, ms; the id of the secret
--     with which entries are unsealed, "" = none; the address of the destination, see `confirm_destination`; the keys' tag; the most live streams and entries of each that are read ahead.
--@keys lease wakeup intents open rendering retry aside holds reached streams
--@args token length owner late_ms secret address tag streams_ahead entries_ahead
--
-- Returns whether it was taken (1 or 0; -1 = its entries are sealed with another secret; -2 = the destination has another address) and the time; if it was, also what the keys hold (hashes as flat lists), the largest digest of
-- `reached` and their number and the names of the streams that are not empty. Intents whose end is past are
-- gone. If it was not taken, the time is that at which the lease lapses.
--@answer taken now intents open rendering retry aside holds largest reached streams ahead marked digests ledgers
-- `ahead` is all that live streams hold (a name, its entries, ...), if that is little and nothing is left of an earlier holder; else it is
-- empty. It is written down here as what will be rendered, as `ledger.lua` does, by the positions that are `marked`; `ledgers` are those of
-- the profiles with these digests. So few live deliveries are rendered without a further look.
-- An intent that ends later than it can have been opened was opened before Redis' clock was set back: it ends as if it were opened now.
-- The wakeup is 1 (live) or 3 (backfill) while a drain that was woken has not begun, 2 if it came while somebody held the lease: then release rings anew.
--@include _clock
--@include _lock

local sealed, address = unpack(redis.call('HMGET', key_lease, 'sealed', 'address'))
if address and address ~= arg_address then return answer{taken = -2, now = now} end
if sealed and sealed ~= arg_secret then return answer{taken = -1, now = now} end
local left = lock_left(key_lease)
if left > 0 and redis.call('HGET', key_lease, 'token') ~= arg_token then
  redis.call('SET', key_wakeup, '2', 'XX')
  return answer{taken = 0, now = now + left}
end
redis.call('HSET', key_lease, 'token', arg_token, 'until', string.format('%.0f', now + tonumber(arg_length)), 'length', arg_length,
  'owner', arg_owner)
redis.call('DEL', key_wakeup)

local open, latest = redis.call('HGETALL', key_open), now + tonumber(arg_late_ms)
for i = 1, #open, 2 do
  local till = tonumber(open[i + 1])
  if till <= now then
    redis.call('HDEL', key_open, open[i])
    redis.call('HDEL', key_intents, open[i])
  elseif till > latest then
    redis.call('HSET', key_open, open[i], string.format('%.0f', latest))
  end
end
local rendering, intents = redis.call('GET', key_rendering) or '', redis.call('HGETALL', key_intents)
local streams = redis.call('SMEMBERS', key_streams)
local live, ahead, marked, digests, ledgers = {}, {}, {}, {}, {}
for _, name in ipairs(streams) do
  if string.sub(name, 1, 5) == 'live|' then live[#live + 1] = name end
end
local most, is_all = tonumber(arg_entries_ahead), rendering == '' and #intents == 0 and #live <= tonumber(arg_streams_ahead)
for i = 1, math.min(#live, tonumber(arg_streams_ahead)) do
  local entries = redis.call('XRANGE', arg_tag .. 's:' .. live[i], '-', '+', 'COUNT', most)
  is_all = is_all and #entries < most
  ahead[#ahead + 1] = live[i]
  ahead[#ahead + 1] = entries
  for _, entry in ipairs(entries) do
    -- A header is a list of JSON; the digest stands second, see `encode_header`.
    local digest = string.match(entry[2][2] or '', '^%[%d+,"(%x+)"')
    marked[#marked + 1] = live[i] .. '|' .. entry[1]
    if digest and #digest % 2 == 0 then digests[#digests + 1] = digest else is_all = false end
  end
end
if is_all and #marked > 0 then
  redis.call('SET', key_rendering, cjson.encode(marked))
  local keys = {}
  for i = 1, #digests do
    keys[i] = arg_tag .. 'l' .. string.gsub(digests[i], '%x%x', function(hex) return string.char(tonumber(hex, 16)) end)
  end
  ledgers = redis.call('MGET', unpack(keys))
else
  ahead, marked, digests = {}, {}, {}
end
return answer{taken = 1, now = now, intents = intents, open = redis.call('HGETALL', key_open),
  rendering = rendering, retry = redis.call('HGETALL', key_retry), aside = redis.call('HGETALL', key_aside),
  holds = redis.call('HGETALL', key_holds), largest = redis.call('ZRANGE', key_reached, -1, -1)[1] or '',
  reached = redis.call('ZCARD', key_reached),
  streams = streams, ahead = ahead, marked = marked, digests = digests, ledgers = ledgers}
