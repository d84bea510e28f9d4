#!lua flags=no-writes
-- Looks through dead letters of one partition behind a place in the order of deaths: the newest first, of those of one millisecond the one
-- with the greatest id.
--
-- KEYS[1] dead letters  [2] their times
-- ARGV[1] time (ms) and [2] id behind which it looks; an id of "" = behind all of that time   [3] how many it looks through
--   [4] JSON: lists of texts; a letter that is found has one text of each list
--
-- Returns {time and id of the last one that it has looked at, both "" = there are no more; then time and id of each that was found}.

local before, id, most, lists = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), cjson.decode(ARGV[4])
local first, behind = 0, redis.call('ZCARD', KEYS[2])
while first < behind do
  local middle = math.floor((first + behind) / 2)
  local name, at = unpack(redis.call('ZREVRANGE', KEYS[2], middle, middle, 'WITHSCORES'))
  if tonumber(at) < before or (tonumber(at) == before and name < id) then behind = middle else first = middle + 1 end
end
local rows = redis.call('ZREVRANGE', KEYS[2], first, first + most - 1, 'WITHSCORES')
local found = #rows == 2 * most and {rows[#rows], rows[#rows - 1]} or {'', ''}
for i = 1, #rows, 2 do
  local text, fits = #lists > 0 and redis.call('HGET', KEYS[1], rows[i]), true
  for _, list in ipairs(lists) do
    local has = false
    for _, part in ipairs(list) do has = has or (text and string.find(text, part, 1, true)) end
    fits = fits and has
  end
  if fits then found[#found + 1], found[#found + 2] = rows[i + 1], rows[i] end
end
return found
