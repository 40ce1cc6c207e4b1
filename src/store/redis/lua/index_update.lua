-- Merges a patch into the metadata of an entry and increments its version. Tags: see metadata.rs.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id | expected version or '' | greatest number of fields | kind, path, text, ... where parents precede their
--         children; the kinds are delete, object, set, string and value (set, and tagged s or v), tag (only a tag)
-- returns 1, or 0 where the entry does not exist or has another version; NVENT_INVALID beyond the number of fields
local meta, TAGS, FIRST = KEYS[2], '~nvent', 4
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
-- Most updates give new values to fields that exist and have no tag: then no other field is affected.
local asked, change, simple = { 'version', TAGS }, {}, #ARGV < 3000
for i = FIRST, simple and #ARGV or 0, 3 do
  local kind, path = ARGV[i], ARGV[i + 1]
  if kind == 'object' then
    -- Without a child in the patch, the object itself has to be created.
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
simple = simple and #change > 0 and #asked * #(found[2] or '') < 100000
for i = 3, simple and #found or 0 do
  simple = simple and (ARGV[FIRST + 3 * (i - 3)] == 'object') == (found[i] == false)
    and not (found[2] and (string.find(asked[i], '[^%w_.%-]') or string.find(found[2], '"' .. asked[i] .. '"', 1, true)))
end
local counted = string.format('%.0f', version + 1)
if simple then
  redis.call('HSET', meta, 'version', counted, unpack(change))
  return 1
end

-- The paths as a tree: a step costs as much as its path is long, whatever else the entry holds. `size` counts the paths at
-- and below a node that are fields or have a tag.
local fields, tags, tagged = {}, {}, false
local root = { size = 0, children = {} }
local function walk(path, each, create)
  local node, from = root, 1
  each(node)
  while from do
    local dot = string.find(path, '.', from, true)
    local name = string.sub(path, from, dot and dot - 1)
    local child = node.children[name]
    if not child then
      if not create then
        return nil
      end
      child = { size = 0, children = {} }
      node.children[name] = child
    end
    node = child
    each(node)
    from = dot and dot + 1
  end
  return node
end
local function nothing() end
local function grow(node) node.size = node.size + 1 end
local function shrink(node) node.size = node.size - 1 end
local function is_there(path)
  return fields[path] or tags[path]
end
local function add(path)
  if not is_there(path) then
    walk(path, grow, true).path = path
  end
end
for _, name in ipairs(redis.call('HKEYS', meta)) do
  if name == TAGS then
    tagged = true
  else
    add(name)
    fields[name] = true
  end
end
if tagged then
  local ok, decoded = pcall(cjson.decode, redis.call('HGET', meta, TAGS))
  for name, tag in pairs(ok and type(decoded) == 'table' and decoded or {}) do
    if type(name) == 'string' and type(tag) == 'string' then
      add(name)
      tags[name] = tag
    end
  end
end

local set, order, gone = {}, {}, {}
local function drop(path)
  if is_there(path) then
    walk(path, shrink)
    if fields[path] then
      set[path], gone[path] = nil, true
    end
    fields[path], tags[path] = nil, nil
  end
end
local function clear(path)
  local top = walk(path, nothing)
  if not top or top.size == 0 then
    return
  end
  local stack, doomed = { top }, {}
  while #stack > 0 do
    local node = table.remove(stack)
    if node.path then
      doomed[#doomed + 1] = node.path
    end
    for _, child in pairs(node.children) do
      stack[#stack + 1] = child
    end
  end
  for _, name in ipairs(doomed) do
    drop(name)
  end
  top.children = {}
end

local objects = {}
for i = FIRST, #ARGV, 3 do
  local kind, path, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if kind == 'object' then
    drop(path)
    objects[#objects + 1] = path
  else
    clear(path)
    if kind ~= 'delete' then
      add(path)
    end
    if kind == 'tag' then
      tags[path] = 'j' .. text
    elseif kind ~= 'delete' then
      fields[path], set[path], gone[path] = true, text, nil
      order[#order + 1] = path
      if kind == 'string' then
        tags[path] = 's' .. text
      elseif kind == 'value' then
        tags[path] = 'v' .. text
      end
    end
  end
end
-- An empty object has no field: a tag represents it. Children first, as they make their parents non-empty.
for i = #objects, 1, -1 do
  local path = objects[i]
  local node = walk(path, nothing)
  if not node or node.size == 0 then
    add(path)
    tags[path] = 'j{}'
  end
end
if root.size > tonumber(ARGV[3]) then
  return redis.error_reply('NVENT_INVALID the entry would have ' .. root.size .. ' fields, at most ' .. ARGV[3]
    .. ' are allowed: keep a value of this size in kv or documents')
end

local function flush(command, list)
  for first = 1, #list, 2000 do
    redis.call(command, meta, unpack(list, first, math.min(first + 1999, #list)))
  end
end
local removed, written = {}, { 'version', counted }
for path in pairs(gone) do
  removed[#removed + 1] = path
end
for _, path in ipairs(order) do
  if set[path] then
    written[#written + 1] = path
    written[#written + 1] = set[path]
    set[path] = nil
  end
end
if next(tags) ~= nil then
  written[#written + 1] = TAGS
  written[#written + 1] = cjson.encode(tags)
elseif tagged then
  removed[#removed + 1] = TAGS
end
flush('HDEL', removed)
flush('HSET', written)
return 1
