-- Adds to a number in the metadata of an entry (a missing one is 0) and counts its version. Tags: see metadata.rs.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id | dotted path | what to add
-- returns the sum as text, or nothing where there is no such entry
local meta, TAGS, path = KEYS[2], '~nvent', ARGV[2]
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return false
end
local function wrong(why)
  return redis.error_reply('NVENT_TYPE field "' .. path .. '": ' .. why)
end
local old, tagged, version = unpack(redis.call('HMGET', meta, path, TAGS, 'version'))
local tags = {}
if tagged then
  local ok, decoded = pcall(cjson.decode, tagged)
  tags = ok and decoded or {}
end
local function is_object(at)
  local prefix = at .. '.'
  for _, name in ipairs(redis.call('HKEYS', meta)) do
    if string.sub(name, 1, #prefix) == prefix then
      return true
    end
  end
  for name, tag in pairs(tags) do
    if string.sub(name, 1, #prefix) == prefix or (name == at and tag == 'j{}') then
      return true
    end
  end
  return false
end
if old then
  if not is_number(old) or tags[path] == 's' .. old then
    return wrong('the value there is no number')
  end
else
  if is_object(path) or (tags[path] and tags[path] ~= 'jnull') then
    return wrong('the value there is no number')
  end
  local at = string.find(path, '.', 1, true)
  while at do
    local parent = string.sub(path, 1, at - 1)
    local is_text = redis.call('HEXISTS', meta, parent) == 1
    if is_text or (tags[parent] and tags[parent] ~= 'j{}' and not is_object(parent)) then
      return wrong('"' .. parent .. '" is no object')
    end
    tags[parent] = nil
    at = string.find(path, '.', at + 1, true)
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
