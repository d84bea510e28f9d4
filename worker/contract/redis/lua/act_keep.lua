#!lua flags=allow-oom
-- Carries a command out and keeps the act, also in a full Redis; once, however often it is called.
-- KEYS[1] what the command changes; no matter without one  [2] acts
-- ARGV[1] acts that are kept  [2] the act as JSON  [3] the mark of this call, the same each time it
--   is repeated  [4] 1 = keep it only if the command changed something; then the command, without
--   its key, or `HRENAME`, a field of a hash, and its new name, which no field has
-- Returns the command's answer; without one, the act's id.
for _, row in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 100)) do
  if row[2][3] == 'm' and row[2][4] == ARGV[3] then return tonumber(row[2][6]) or row[1] end
end
local answer = ''
if ARGV[5] == 'HRENAME' then
  local value = redis.call('HGET', KEYS[1], ARGV[6])
  answer = value and redis.call('HSETNX', KEYS[1], ARGV[7], value) or 0
  if answer == 1 then redis.call('HDEL', KEYS[1], ARGV[6]) end
elseif #ARGV > 4 then
  answer = redis.call(ARGV[5], KEYS[1], unpack(ARGV, 6))
end
local id = ''
if ARGV[4] == '0' or answer ~= 0 then
  id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*',
    'a', ARGV[2], 'm', ARGV[3], 'r', answer)
end
return answer == '' and id or answer
