#!lua
-- Writes into a partition that nobody uses yet, or deletes from it, if it still belongs to this attempt at changing their number.
--
-- KEYS[1] lease  [2..] keys
-- ARGV[1] token of the attempt  [2] how long the lease is held from now on, ms
--     then per write: the index of its key among KEYS, how many words follow the command, the command, these words; the command MEMBERS
--     is ours: members of a sync, and their marks
--
-- Returns how many ledgers came that were not there; -1 if another attempt has taken the partition over, or the change is done.
--@include _clock
--@include _members

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
local ledgers, i = 0, 3
while i <= #ARGV do
  local key, command, last = KEYS[tonumber(ARGV[i])], ARGV[i + 2], i + 2 + tonumber(ARGV[i + 1])
  if command == 'SET' and string.find(key, '^{[^}]*}l') then ledgers = ledgers + 1 - redis.call('EXISTS', key) end
  if command == 'MEMBERS' then
    local people = {}
    for at = i + 3, last, 2 do people[#people + 1] = ARGV[at] end
    local roll = open_members(key, people)
    for at = i + 3, last, 2 do set_member(roll, ARGV[at], ARGV[at + 1]) end
    close_members(roll)
  else
    redis.call(command, key, unpack(ARGV, i + 3, last))
  end
  i = last + 1
end
return ledgers
