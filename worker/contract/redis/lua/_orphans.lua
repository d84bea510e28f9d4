-- A trigger that means something may not want what stands in its stream up to an id: `orphans` holds that id, and how many entries
-- these are, by `lane|trigger|SCOPE`.
--@include _ids

-- count_down(orphans, name, ids): these entries were removed from the stream `name`; without ids: the stream was.
local function count_down(orphans, name, ids)
  local flat = redis.call('HGETALL', orphans)
  for i = 1, #flat, 2 do
    local field, last = flat[i], flat[i + 1]
    if string.sub(field, 1, #name + 1) == name .. '|' and string.sub(field, -2) ~= '|n' then
      local gone = 0
      for _, id in ipairs(ids or {}) do
        if not is_behind(id, last) then gone = gone + 1 end
      end
      if not ids or (gone > 0 and redis.call('HINCRBY', orphans, field .. '|n', -gone) <= 0) then
        redis.call('HDEL', orphans, field, field .. '|n')
      end
    end
  end
end
