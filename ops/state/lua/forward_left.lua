#!lua flags=allow-oom
-- Ends the moving of a person at the partition that they leave: the ledger goes, and what comes from now on is handed on.
--
-- KEYS[1] forwards  [2] lease  [3] ledger  [4] intents  [5] reached  [6] who
-- ARGV[1] digest (hex)  [2] the record as it was found  [3] the record from now on  then the fields of the marks that were kept
--
-- Returns 1; 0 if the record is another one by now; 2 if a request for this person was not answered yet: its intent tells the ledger;
-- .

if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
for _, intent in ipairs(redis.call('HVALS', KEYS[4])) do
  if string.find(intent, ARGV[1], 1, true) then return 2 end
end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
for i = 4, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return 1
