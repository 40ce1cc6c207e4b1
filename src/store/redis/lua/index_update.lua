-- Merges a patch into the metadata of an entry and counts its version. Tags: see metadata.rs.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id | expected version or '' | kind, path, text, ... with parents before what is in them; the kinds are
--         delete, object, set, string and value (set, and tagged s or v), tag (only a tag)
-- returns 1, or 0 where there is no such entry or it has another version
local meta, TAGS = KEYS[2], '~nvent'
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
-- Most updates give new values to fields that are there and have no tag: then no other field is affected.
local asked, change, simple = { 'version', TAGS }, {}, #ARGV < 3000
for i = 3, #ARGV, 3 do
  local kind, path = ARGV[i], ARGV[i + 1]
  if kind == 'object' then
    -- Unless something is in it, it is more than a name in other names.
    simple = simple and string.sub(ARGV[i + 4] or '', 1, #path + 1) == path .. '.'
  else
    simple = simple and kind == 'set'
  end
  asked[#asked + 1] = path
  if kind == 'set' then
    change[#change + 1] = path
    change[#change + 1] = ARGV[i + 2]
  end
end
local found = redis.call('HMGET', meta, unpack(asked, 1, simple and #asked or 2))
local version = tonumber(found[1] or '0') or 0
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= version then
  return 0
end
simple = simple and #change > 0
for i = 3, #found do
  simple = simple and (ARGV[3 * (i - 2)] == 'object') == (found[i] == false)
    and not (found[2] and (string.find(asked[i], '[^%w_.%-]') or string.find(found[2], '"' .. asked[i] .. '"', 1, true)))
end
local counted = string.format('%.0f', version + 1)
if simple then
  redis.call('HSET', meta, 'version', counted, unpack(change))
  return 1
end
local names, tags, tagged = {}, {}, false
for _, name in ipairs(redis.call('HKEYS', meta)) do
  names[name] = true
end
if names[TAGS] then
  local ok, decoded = pcall(cjson.decode, redis.call('HGET', meta, TAGS))
  tags = ok and decoded or {}
  names[TAGS] = nil
  tagged = true
end

local function drop(path)
  if names[path] then
    redis.call('HDEL', meta, path)
    names[path] = nil
  end
  tags[path] = nil
end
local function below(path)
  local prefix, found = path .. '.', {}
  for _, set in ipairs({ names, tags }) do
    for name in pairs(set) do
      if string.sub(name, 1, #prefix) == prefix then
        found[#found + 1] = name
      end
    end
  end
  return found
end
local function clear(path)
  drop(path)
  for _, name in ipairs(below(path)) do
    drop(name)
  end
end

local objects = {}
for i = 3, #ARGV, 3 do
  local kind, path, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if kind == 'object' then
    drop(path)
    objects[#objects + 1] = path
  else
    clear(path)
    if kind == 'tag' then
      tags[path] = 'j' .. text
    elseif kind ~= 'delete' then
      redis.call('HSET', meta, path, text)
      names[path] = true
      if kind == 'string' then
        tags[path] = 's' .. text
      elseif kind == 'value' then
        tags[path] = 'v' .. text
      end
    end
  end
end
-- An object with nothing in it has no field: a tag stands for it. Children first, as they keep their parents.
for i = #objects, 1, -1 do
  if #below(objects[i]) == 0 then
    tags[objects[i]] = 'j{}'
  end
end
if next(tags) ~= nil then
  redis.call('HSET', meta, TAGS, cjson.encode(tags))
elseif tagged then
  redis.call('HDEL', meta, TAGS)
end
redis.call('HSET', meta, 'version', counted)
return 1
