-- Adds to a number in the metadata of an entry (a missing one is 0) and increments its version. Tags: see metadata.rs.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id | dotted path | what to add | greatest number of fields
-- returns the sum as text, or nothing where there is no such entry; NVENT_TYPE where the value is no number or the sum is
--         not finite, NVENT_INVALID beyond the number of fields
local meta, TAGS, path = KEYS[2], '~nvent', ARGV[2]
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return false
end
local function wrong(why)
  return redis.error_reply('NVENT_TYPE ' .. why)
end
local old, tagged, version = unpack(redis.call('HMGET', meta, path, TAGS, 'version'))
local tags = {}
if tagged then
  local ok, decoded = pcall(cjson.decode, tagged)
  tags = ok and type(decoded) == 'table' and decoded or {}
end
if old then
  if not is_number(old) or tags[path] == 's' .. old then
    return wrong('the value there is no number')
  end
else
  local names = redis.call('HKEYS', meta)
  if #names >= tonumber(ARGV[4]) then
    return redis.error_reply('NVENT_INVALID the entry has ' .. #names .. ' fields, more are not allowed')
  end
  local has = {}
  for _, name in ipairs(names) do
    has[name] = true
  end
  -- The ends of the path's parents, and how many of them are objects: those have a field or tag below them.
  local ends, from = {}, string.find(path, '.', 1, true)
  while from do
    ends[#ends + 1] = from - 1
    from = string.find(path, '.', from + 1, true)
  end
  ends[#ends + 1] = #path
  local objects = 0
  local function look(name)
    while objects < #ends and string.sub(name, 1, ends[objects + 1] + 1) == string.sub(path, 1, ends[objects + 1]) .. '.' do
      objects = objects + 1
    end
  end
  for _, name in ipairs(names) do
    look(name)
  end
  for name in pairs(tags) do
    look(name)
  end
  if objects == #ends or (tags[path] and tags[path] ~= 'jnull') then
    return wrong('the value there is no number')
  end
  for i = 1, #ends - 1 do
    local parent = string.sub(path, 1, ends[i])
    if has[parent] or (tags[parent] and tags[parent] ~= 'j{}' and i > objects) then
      return wrong('a parent of the field is no object')
    end
    tags[parent] = nil
  end
end
local sum = number_text(tonumber(old or '0') + tonumber(ARGV[3]))
if not sum then
  return wrong('the sum is not a finite number')
end
tags[path] = nil
redis.call('HSET', meta, path, sum, 'version', string.format('%.0f', (tonumber(version or '0') or 0) + 1))
if next(tags) ~= nil then
  redis.call('HSET', meta, TAGS, cjson.encode(tags))
elseif tagged then
  redis.call('HDEL', meta, TAGS)
end
return sum
