#!lua flags=allow-oom
-- Carries a command out and keeps the act, also in a full Redis; once, however often it is called.
-- KEYS[1] what the command changes; no matter without one  [2] acts
-- ARGV[1] acts that are kept  [2] the act as JSON  [3] the mark of this call, the same each time it
--   is repeated  [4] 1 = keep it only if the command changed something; then the command, without
--   its key
-- Returns the command's answer; without one, the act's id.
for _, row in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 100)) do
  if row[2][3] == 'm' and row[2][4] == ARGV[3] then return tonumber(row[2][6]) or row[1] end
end
local answer = ''
if #ARGV > 4 then
  answer = redis.call(ARGV[5], KEYS[1], unpack(ARGV, 6))
end
local id = ''
if ARGV[4] == '0' or answer ~= 0 then
  id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*',
    'a', ARGV[2], 'm', ARGV[3], 'r', answer)
end
return answer == '' and id or answer
