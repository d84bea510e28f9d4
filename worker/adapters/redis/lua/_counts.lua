-- Counts of a hash that a script adds to: collected first, then written by two commands, however many they are.
local collected, counted_fields = {}, {}
local function count(field, amount)
  if not collected[field] then counted_fields[#counted_fields + 1] = field end
  collected[field] = (collected[field] or 0) + amount
end
local function write_counts(key)
  local MOST_FIELDS = 2000 -- of a call of Lua's `unpack`
  for first = 1, #counted_fields, MOST_FIELDS do
    local last = math.min(first + MOST_FIELDS - 1, #counted_fields)
    local sums = {}
    for i, known in ipairs(redis.call('HMGET', key, unpack(counted_fields, first, last))) do
      local field = counted_fields[first + i - 1]
      sums[2 * i - 1], sums[2 * i] = field, string.format('%d', (tonumber(known) or 0) + collected[field])
    end
    redis.call('HSET', key, unpack(sums))
  end
end
