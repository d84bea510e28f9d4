#!lua flags=allow-oom
-- Remembers with which identities stable ids came, and writes a change where one came with another identity than before. The time of
-- the event decides, whoever asks and however late: an older one renames nobody back.
--
-- KEYS[1] changes  [2] changed  [3] lease  [4..] records, one per sighting; several may be the same
-- ARGV[1] for how long a record is kept, ms  [2] changes of one stable id in a day at most  then per sighting eight lines: digest of the stable id
--   (hex), digest of the identity (hex), the profile's key, time (17 digits), 1 = kept without an end, the key to which events of this
--   identity are handed on ("" = none), 1 = because a person said so, trigger
--
-- A record is `time changes since refused key`: the newest event's time; how many changes there were since (ms) the first of a day; the
-- digest of an identity with which it goes on as another person ("-" = none; behind "<" one that others have, and whose late events
-- belong to the key); the profile's key.
-- Returns per sighting: "" = its events go on as they are; "w" = they wait for a change; else the key of the profile to which they belong.
--@include _clock

local DAY, FIXED = 86400000, 3
local kept, most = ARGV[1], tonumber(ARGV[2])
local answer = {}

local function write(record, lasts, ...)
  local text = table.concat({...}, ' ')
  if lasts == '1' then redis.call('SET', record, text) else redis.call('SET', record, text, 'PX', kept) end
end

local function rewrite(record, ...)
  redis.call('SET', record, table.concat({...}, ' '), 'KEEPTTL')
end

local function seen(record, stable, identity, key, time, lasts, forward, by_person, trigger)
  if redis.call('HEXISTS', KEYS[1], stable) == 1 then return 'w' end
  local text = redis.call('GET', record)
  local last = forward ~= '' and forward or key
  if not text then
    write(record, lasts, time, '0', '0', '-', last)
    return last == key and '' or last
  end
  local known, changes, since, refused, known_key = string.match(text, '^(%d+) (%d+) (%d+) (%S+) (.*)$')
  local is_newer = time > known
  if known_key == key then
    if is_newer or last ~= key then write(record, lasts, is_newer and time or known, changes, since, refused, last) end
    return last == key and '' or last
  end
  if forward ~= '' and (by_person == '1' or not is_newer) then return known_key end
  if refused == identity then return '' end
  if refused == '<' .. identity and not is_newer then return known_key end
  if tonumber(since) <= now - DAY or tonumber(since) > now then changes, since = '0', string.format('%.0f', now) end
  if tonumber(changes) >= most then
    rewrite(record, known, changes, since, identity, known_key)
    redis.call('HINCRBY', KEYS[2], 'refused', 1)
    redis.call('HSET', KEYS[2], 'refused_ms', string.format('%.0f', now))
    return ''
  end
  rewrite(record, known, tostring(tonumber(changes) + 1), since, refused, known_key)
  local old, new = known_key, key
  if not is_newer then old, new, time = key, known_key, known end
  redis.call('HSET', KEYS[1], stable, table.concat({trigger, time, old, new}, '\n'))
  return 'w'
end

local LINES = '^' .. string.rep('([^\n]*)\n', 7) .. '(.*)$'
for i = 1, #KEYS - FIXED do answer[i] = seen(KEYS[FIXED + i], string.match(ARGV[2 + i], LINES)) end
return answer
