#!lua flags=allow-oom
-- Counts deaths of one cause in a row, over all workers, and pauses the trigger of which nothing else comes.
--
-- KEYS[1] streaks  [2] paused
-- ARGV[1] trigger  [2] cause  [3] how many would die now  [4] how many may die of one cause in a row
--     [5] field of paused  [6] its text  [7] what names this question: asked again, it is answered as before
--
-- Returns how many of them may die; the trigger is paused if that is fewer than asked, or the last.
-- None may once it is paused: what other workers have under way of it stays where it is.
-- A streak is `cause|count|question|answer`, of the last question.

if redis.call('HEXISTS', KEYS[2], ARGV[5]) == 1 then return 0 end
local old = redis.call('HGET', KEYS[1], ARGV[1])
local count = 0
if old then
  local cause, n, question, answer = string.match(old, '^([^|]*)|(%d+)|?([^|]*)|?(%d*)$')
  if question == ARGV[7] then return tonumber(answer) end
  if cause == ARGV[2] then count = tonumber(n) end
end
local may = math.max(0, math.min(tonumber(ARGV[3]), tonumber(ARGV[4]) - count))
count = count + may
redis.call('HSET', KEYS[1], ARGV[1], table.concat({ARGV[2], count, ARGV[7], may}, '|'))
if count >= tonumber(ARGV[4]) then
  redis.call('HSETNX', KEYS[2], ARGV[5], ARGV[6])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return may
