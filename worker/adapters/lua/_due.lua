-- due(streams, retry, holds, tag, paused, now): 1 if some stream of this partition has work that may be done now.
-- A stream is due if it is not empty, its trigger neither waits nor is paused, and not all of it is on hold.
local function has_live(streams)
  for _, name in ipairs(redis.call('SMEMBERS', streams)) do
    if string.sub(name, 1, 5) == 'live|' then return true end
  end
  return false
end

local function due(streams, retry, holds, tag, paused, now)
  for _, name in ipairs(redis.call('SMEMBERS', streams)) do
    local trigger = string.match(name, '|(.*)$')
    if not paused[trigger] then
      local wait = redis.call('HGET', retry, trigger)
      if not wait or cjson.decode(wait)[2] <= now then
        local hold = redis.call('HGET', holds, name)
        local after = '-'
        if hold then
          local id, till = string.match(hold, '^(%S+) (%d+)$')
          if tonumber(till) > now then after = '(' .. id end
        end
        if #redis.call('XRANGE', tag .. 's:' .. name, after, '+', 'COUNT', 1) > 0 then return 1 end
      end
    end
  end
  return 0
end
