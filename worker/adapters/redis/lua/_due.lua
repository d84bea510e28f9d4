-- told_from(first): the names that stand in ARGV from there on; and the newest editions of triggers, which stand there as
-- `trigger|EDITION`.
local function told_from(first)
  local paused, editions = {}, {}
  for i = first, #ARGV do
    local trigger, edition = string.match(ARGV[i], '^(.*)|(.*)$')
    if trigger then editions[trigger] = edition ~= '' and edition else paused[ARGV[i]] = true end
  end
  return paused, editions
end

-- An empty stream leaves `streams`: whoever settled what was last in it may not have known that.
-- due(streams, retry, holds, tag, paused, editions, now, longest): 1 if a stream of the live lane has work that may be done now, 3 if only others have,
-- 0 if none has: what the wake-up says.
-- A stream is due if it is not empty, its trigger neither waits nor is paused, nor is its lane (a job's), and not all of it is on hold.
-- A wait or a hold of another edition than the newest has ended: the template or the configuration was mended since.
-- A wait or a hold that ends later than in `longest` (ms) was set before Redis' clock was set back: it has ended.
local function due(streams, retry, holds, tag, paused, editions, now, longest)
  local function lasts(trigger, till, edition)
    local newest = editions[trigger]
    local is_former = newest and edition and edition ~= '' and edition ~= newest
    return not is_former and till > now and till <= now + longest
  end
  local found = 0
  for _, name in ipairs(redis.call('SMEMBERS', streams)) do
    local lane, trigger = string.match(name, '^([^|]*)|(.*)$')
    local live = lane == 'live'
    if not paused[trigger] and not paused[lane] and (live or found == 0) then
      local text = redis.call('HGET', retry, trigger)
      local wait = text and cjson.decode(text)
      if not wait or not lasts(trigger, wait[2], wait[5]) then
        local hold, after = redis.call('HGET', holds, name), nil
        if hold then
          local id, till, edition = string.match(hold, '^(%S+) (%d+) ?(%S*)')
          if lasts(trigger, tonumber(till), edition) then after = id end
        end
        if #redis.call('XRANGE', tag .. 's:' .. name, after and '(' .. after or '-', '+', 'COUNT', 1) > 0 then
          if live then return 1 end
          found = 3
        elseif not after then
          redis.call('SREM', streams, name)
        end
      end
    end
  end
  return found
end
