#!lua flags=allow-oom
-- Compares the problems that somebody has just seen with those that are known, and decides which
-- begin and which are over. Whoever looked earlier than another has nothing to say any more, so a
-- process that stood still announces nothing for a second time.
-- KEYS[1] what is known: `observed`, `last`, and `problem|KEY` → JSON  [2] the outbox: number → JSON
-- ARGV[1] when the problems were read (ms)  [2] a problem is announced after it has stood this long
--   (ms)  [3] it is over after it has been away for this long (ms)  [4] the same, and within which
--   a problem that comes back counts as one that comes and goes (ms)  [5] messages kept at most;
--   KEY and JSON of each problem …
-- A record has: first, since when it stands; gone, since when it is away; told, when its begin was
--   announced; ended, when its end was announced; restless, it comes and goes; problem, the JSON.
-- Returns how many messages were added, or -1 if somebody has looked later already.

local at = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local observed = tonumber(redis.call('HGET', KEYS[1], 'observed') or '0')
-- What was seen after this moment was seen before the clock was set back.
if at <= observed and observed <= now then return -1 end
redis.call('HSET', KEYS[1], 'observed', ARGV[1])
local stands, calm, quiet = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local added = 0

local function put(kind, record)
  local number = redis.call('HINCRBY', KEYS[1], 'last', 1)
  local message = {kind = kind, at = at, first = record.told_first, restless = record.restless,
    problem = record.problem}
  redis.call('HSET', KEYS[2], number, cjson.encode({message = message, tries = 0, due = 0}))
  redis.call('HDEL', KEYS[2], number - tonumber(ARGV[5]))
  added = added + 1
end

local seen = {}
for place = 6, #ARGV, 2 do
  local field = 'problem|' .. ARGV[place]
  seen[field] = true
  local text = redis.call('HGET', KEYS[1], field)
  local record = text and cjson.decode(text) or {first = at}
  record.first = math.min(record.first, at)
  if record.gone then
    record.gone = nil
    if not record.told then record.first = at end
  end
  record.problem = ARGV[place + 1]
  if not record.told and at - record.first >= stands then
    record.restless = record.ended ~= nil and at - record.ended < quiet
    record.told, record.told_first = at, record.first
    put('begin', record)
  end
  redis.call('HSET', KEYS[1], field, cjson.encode(record))
end

local known = redis.call('HGETALL', KEYS[1])
for place = 1, #known, 2 do
  local field = known[place]
  if field:match('^problem|') and not seen[field] then
    local record = cjson.decode(known[place + 1])
    record.gone = math.min(record.gone or at, at)
    if record.told and at - record.gone >= (record.restless and quiet or calm) then
      put('end', record)
      record.told, record.ended = nil, at
    end
    if record.told or (record.ended and at - record.ended < quiet) then
      redis.call('HSET', KEYS[1], field, cjson.encode(record))
    else
      redis.call('HDEL', KEYS[1], field)
    end
  end
end
return added
