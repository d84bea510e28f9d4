-- call_with_all(command, key, values): calls a command with many values, as often as Lua's `unpack` asks for; returns the sum of its answers.
local MOST_VALUES = 4000
local function call_with_all(command, key, values)
  local sum = 0
  for first = 1, #values, MOST_VALUES do
    sum = sum + redis.call(command, key, unpack(values, first, math.min(first + MOST_VALUES - 1, #values)))
  end
  return sum
end
