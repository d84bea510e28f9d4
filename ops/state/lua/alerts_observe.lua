#!lua flags=allow-oom
-- Compares the problems that somebody has just seen with those that are known, and decides what is
-- told. Whoever looked earlier than another has nothing to say any more, so a process that stood
-- still announces nothing for a second time.
-- KEYS[1] what is known: `observed`, `last`, and `problem|KEY` → JSON  [2] the outbox: number → JSON
-- ARGV[1] when the problems were read (ms)  [2] the limits as JSON (ms), see `AlertStore.observe`:
--   stands, a problem is announced after it has stood this long; calm, it is over after it has been
--   away for this long; quiet, the same, and within which a problem that comes back counts as one
--   that comes and goes; lasts, one that comes and goes is told again after it has stood this long,
--   and twice as long each further time, up to longest; remind, an ill one that is still there is
--   told again after this long, 0 = never; kept, messages at most
--   KEY and JSON of each problem …
-- A record has: first, since when it stands; back, the same since it was last away; gone, since when
--   it is away; told, when it was last told; severity, as it was told; ended, when its end was told;
--   restless, it comes and goes; again, how often it was told again since; problem, the JSON.
-- Returns how many messages were added, or -1 if somebody has looked later already.

local at = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local observed = tonumber(redis.call('HGET', KEYS[1], 'observed') or '0')
-- What was seen after this moment was seen before the clock was set back.
if at <= observed and observed <= now then return -1 end
redis.call('HSET', KEYS[1], 'observed', ARGV[1])
local limit = cjson.decode(ARGV[2])
local added = 0

local function put(kind, record)
  local number = redis.call('HINCRBY', KEYS[1], 'last', 1)
  local message = {kind = kind, at = at, first = record.told_first, restless = record.restless,
    problem = record.problem}
  redis.call('HSET', KEYS[2], number, cjson.encode({message = message, tries = 0, due = 0}))
  redis.call('HDEL', KEYS[2], number - limit.kept)
  added = added + 1
end

local function tell(kind, record, severity)
  record.told, record.severity = at, severity
  put(kind, record)
end

local seen = {}
for i = 3, #ARGV, 2 do
  local field = 'problem|' .. ARGV[i]
  seen[field] = true
  local text = redis.call('HGET', KEYS[1], field)
  local record = text and cjson.decode(text) or {first = at}
  record.first = math.min(record.first, at)
  if record.gone then
    record.gone, record.back = nil, at
    if not record.told then record.first = at end
  end
  record.problem = ARGV[i + 1]
  local severity = cjson.decode(record.problem).severity
  if not record.told then
    if at - record.first >= limit.stands then
      record.restless = record.ended ~= nil and at - record.ended < limit.quiet
      record.told_first, record.back, record.again = record.first, nil, 0
      tell('begin', record, severity)
    end
  elseif severity == 'ill' and record.severity ~= 'ill' then
    tell('worse', record, severity)
  elseif record.back then
    -- It came back before its end was told. One that goes on to come and go is not told each time,
    -- but one that lasts is, whatever was before.
    if at - record.back >= math.min(limit.longest, limit.lasts * 2 ^ record.again) then
      record.restless, record.back = true, nil
      record.again = record.again + 1
      tell('begin', record, severity)
    end
  elseif severity == 'ill' and limit.remind > 0 and at - record.told >= limit.remind then
    tell('reminder', record, severity)
  end
  redis.call('HSET', KEYS[1], field, cjson.encode(record))
end

local known = redis.call('HGETALL', KEYS[1])
for i = 1, #known, 2 do
  local field = known[i]
  if field:match('^problem|') and not seen[field] then
    local record = cjson.decode(known[i + 1])
    record.gone = math.min(record.gone or at, at)
    if record.told and at - record.gone >= (record.restless and limit.quiet or limit.calm) then
      put('end', record)
      record.told, record.ended = nil, at
    end
    if record.told or (record.ended and at - record.ended < limit.quiet) then
      redis.call('HSET', KEYS[1], field, cjson.encode(record))
    else
      redis.call('HDEL', KEYS[1], field)
    end
  end
end
return added
