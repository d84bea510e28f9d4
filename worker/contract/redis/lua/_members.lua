-- The members that syncs know: `{d:p}members:SYNC`, a hash of texts of some members each.
--
-- Its fields are `buckets`, how many texts there may be, `members`, how many members they have together, and the numbers of the texts. In
-- a text, each member has the size of the name (one byte, or 255 and two bytes), the size of the mark (a byte), the name, and the mark.
-- A name is a profile's key, without `email:`; any other key has a zero byte before it. The hash of the name tells the text in which it is.
--
-- Whenever texts have more than MEMBERS_EACH members on average, the next text is split in two, and its second half becomes the last
-- one (linear hashing). So texts are read in the order of their numbers: whoever moves meanwhile moves to a text that is still to come.
local MEMBERS_EACH = 16
local MOST_AT_ONCE = 2000
local EMAIL = 'email:'
local byte, find, sub = string.byte, string.find, string.sub

local function short_name(key)
  if sub(key, 1, #EMAIL) == EMAIL and #key > #EMAIL and byte(key, #EMAIL + 1) ~= 0 then
    return sub(key, #EMAIL + 1)
  end
  return '\0' .. key
end

-- bucket_of(roll, name): the number of the text in which a member is, if they are one.
local function bucket_of(roll, name)
  local bucket = tonumber(sub(redis.sha1hex(name), 1, 8), 16) % (2 * roll.level)
  return bucket < roll.buckets and bucket or bucket - roll.level
end

local function size_roll(roll, buckets)
  roll.buckets = buckets
  while roll.level * 2 <= buckets do roll.level = roll.level * 2 end
end

-- sizes_at(text, at): size of the name and of the mark of the member that begins there, and where the name begins.
local function sizes_at(text, at)
  local name, mark, high, low = byte(text, at, at + 3)
  if name < 255 then return name, mark, at + 2 end
  return 256 * high + low, mark, at + 4
end

-- find_member(text, name): where a member begins, where the next one does, and where the mark does; nil if they are not there.
local function find_member(text, name)
  -- Where the name stands, a member need not begin: it may be a part of another name, or of a mark.
  local found, at = find(text, name, 1, true), 1
  while found do
    local begins, ends, following
    repeat
      local name_size, mark_size, name_at = sizes_at(text, at)
      begins, ends = at, name_at + name_size
      following = ends + mark_size
      if name_at == found and name_size == #name then return begins, following, ends end
      at = following
    until following > found
    found = find(text, name, following, true)
  end
end

local function packed_member(name, mark)
  local size = #name
  if size < 255 then return string.char(size, #mark) .. name .. mark end
  return string.char(255, #mark, math.floor(size / 256), size % 256) .. name .. mark
end

-- is_name(mark): whether no run of the sync has seen the person yet.
local function is_name(mark) return sub(mark, 1, 2) == '0 ' end

-- member_mark(roll, key): the mark of somebody; nil if they are no member.
local function member_mark(roll, key)
  local text = roll.texts[roll.bucket[key]]
  local begins, ends, mark = find_member(text, roll.name[key])
  roll.found_key, roll.found_text, roll.found_begins, roll.found_ends = key, text, begins, ends
  return mark and sub(text, mark, ends - 1)
end

-- set_member(roll, key, mark): gives somebody a mark; with false, they are no member any more.
local function set_member(roll, key, mark)
  local name, bucket = roll.name[key], roll.bucket[key]
  local text = roll.texts[bucket]
  local begins, ends = roll.found_begins, roll.found_ends
  if roll.found_key ~= key or roll.found_text ~= text then begins, ends = find_member(text, name) end
  local becomes = mark and packed_member(name, mark) or ''
  if begins then
    text = sub(text, 1, begins - 1) .. becomes .. sub(text, ends)
  else
    text = text .. becomes
  end
  roll.count = roll.count + (mark and 1 or 0) - (begins and 1 or 0)
  roll.texts[bucket], roll.changed[bucket] = text, true
end

local function load_texts(roll, buckets)
  for from = 1, #buckets, MOST_AT_ONCE do
    local till = math.min(#buckets, from + MOST_AT_ONCE - 1)
    local texts = redis.call('HMGET', roll.key, unpack(buckets, from, till))
    for i = from, till do roll.texts[buckets[i]] = texts[i - from + 1] or '' end
  end
end

-- open_members(key, keys): returns the roll in which these people can be looked up and changed. `keys` are profiles' keys.
local function open_members(key, keys)
  local buckets, count = unpack(redis.call('HMGET', key, 'buckets', 'members'))
  local roll = {key = key, name = {}, bucket = {}, texts = {}, changed = {}, level = 1}
  roll.count = tonumber(count) or 0
  size_roll(roll, tonumber(buckets) or 1)
  local wanted, asked = {}, {}
  for _, each in ipairs(keys) do
    local name = short_name(each)
    local bucket = bucket_of(roll, name)
    roll.name[each], roll.bucket[each] = name, bucket
    if not asked[bucket] then
      asked[bucket] = true
      wanted[#wanted + 1] = bucket
    end
  end
  load_texts(roll, wanted)
  return roll
end

local function split_text(roll)
  local from, into = roll.buckets - roll.level, roll.buckets
  if not roll.texts[from] then load_texts(roll, {from}) end
  local text, stay, go = roll.texts[from], {}, {}
  size_roll(roll, roll.buckets + 1)
  local at = 1
  while at <= #text do
    local name_size, mark_size, begins = sizes_at(text, at)
    local following = begins + name_size + mark_size
    local half = bucket_of(roll, sub(text, begins, begins + name_size - 1)) == from and stay or go
    half[#half + 1] = sub(text, at, following - 1)
    at = following
  end
  roll.texts[from], roll.texts[into] = table.concat(stay), table.concat(go)
  roll.changed[from], roll.changed[into] = true, true
end

-- close_members(roll): writes what has changed.
local function close_members(roll)
  if not next(roll.changed) then return end
  if roll.count == 0 then
    redis.call('UNLINK', roll.key)
    return
  end
  while roll.count > MEMBERS_EACH * roll.buckets do split_text(roll) end
  local written, gone = {'buckets', roll.buckets, 'members', roll.count}, {}
  for bucket in pairs(roll.changed) do
    local text = roll.texts[bucket]
    if text == '' then
      gone[#gone + 1] = bucket
    else
      written[#written + 1] = bucket
      written[#written + 1] = text
    end
  end
  for from = 1, #written, MOST_AT_ONCE do
    redis.call('HSET', roll.key, unpack(written, from, math.min(#written, from + MOST_AT_ONCE - 1)))
  end
  for from = 1, #gone, MOST_AT_ONCE do
    redis.call('HDEL', roll.key, unpack(gone, from, math.min(#gone, from + MOST_AT_ONCE - 1)))
  end
end
