#!lua flags=no-writes,allow-oom
-- Reads the next entries of several streams.
--
-- KEYS[1], KEYS[2], … the streams
-- ARGV[1] so many bytes are enough: of the streams behind them one entry each is read
--     then per stream: behind which id ("" = from its begin), how many entries
--
-- Returns per stream {1 = there is nothing behind these, 0 = there may be, entries as XRANGE returns them}.

local left = tonumber(ARGV[1])
local answer = {}
for i, stream in ipairs(KEYS) do
  local after, count = ARGV[2 * i], left > 0 and tonumber(ARGV[2 * i + 1]) or 1
  local rows = redis.call('XRANGE', stream, after == '' and '-' or '(' .. after, '+', 'COUNT', count)
  for _, row in ipairs(rows) do
    for _, part in ipairs(row[2]) do left = left - #part end
  end
  answer[i] = {#rows < count and 1 or 0, rows}
end
return answer
