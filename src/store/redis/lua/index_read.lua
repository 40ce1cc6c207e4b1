-- Returns a page of an index: highest score first, ties by id ascending.
-- KEYS    the index (sorted set). The hashes with metadata, <index>:meta:<id>, are derived from it.
-- ARGV    offset | limit | conditions as JSON: [{ path, any: [{ kind, text }], list }], '[]' for none
-- returns { { id, score, { field, text, ... } }, ... }
local index, offset, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local conditions = cjson.decode(ARGV[3])
local TAGS = '~nvent'

-- Ids and scores at positions of that order. Redis reverses ids within equal scores; only the first and the last score of
-- a page can reach beyond it, so those are looked up, and the others reversed.
local function page(from, count)
  local raw = redis.call('ZREVRANGE', index, from, from + count - 1, 'WITHSCORES')
  local entries, first = {}, 1
  local total = #raw / 2
  while first <= total do
    local score, last = raw[first * 2], first
    while last < total and raw[(last + 1) * 2] == score do
      last = last + 1
    end
    if first == 1 or last == total then
      local above = redis.call('ZCOUNT', index, '(' .. score, '+inf')
      local ids = redis.call('ZRANGEBYSCORE', index, score, score, 'LIMIT', from + first - 1 - above, last - first + 1)
      for _, id in ipairs(ids) do
        entries[#entries + 1] = { id, score }
      end
    else
      for at = last, first, -1 do
        entries[#entries + 1] = { raw[at * 2 - 1], score }
      end
    end
    first = last + 1
  end
  return entries
end

local function meta(id)
  return index .. ':meta:' .. id
end

-- Returns whether there are fields or tags below a path, which makes it an object.
local function has_below(id, path, tags)
  local prefix = path .. '.'
  for name in pairs(tags) do
    if string.sub(name, 1, #prefix) == prefix then
      return true
    end
  end
  for _, name in ipairs(redis.pcall('HKEYS', meta(id))) do
    if string.sub(name, 1, #prefix) == prefix then
      return true
    end
  end
  return false
end

local function matches_one(id, condition, text, tags)
  local path = condition.path
  local tag = tags[path]
  for _, wanted in ipairs(condition.any) do
    local kind = wanted.kind
    if kind == 'null' then
      if not text and (not tag or tag == 'jnull') and not has_below(id, path, tags) then
        return true
      end
    elseif text then
      local same = text == wanted.text
      if kind == 'text' then
        if same and tag ~= 'v' .. text then return true end
      elseif kind == 'string' then
        if same and tag == 's' .. text then return true end
      elseif tag ~= 's' .. text then
        if same then return true end
        -- Digits alone are equal only as text, see metadata.rs; fractions and exponents have more than one form.
        if kind == 'number' and string.find(text, '[%.eE]') and is_number(text) and tonumber(text) == tonumber(wanted.text) then
          return true
        end
      end
    end
  end
  return condition.list ~= cjson.null and text == condition.list and tag ~= 's' .. text
end

local fields = {}
for i, condition in ipairs(conditions) do
  fields[i] = condition.path
end
fields[#fields + 1] = TAGS

local function matches(id)
  local texts = redis.pcall('HMGET', meta(id), unpack(fields))
  texts = texts.err and {} or texts
  local tagged, tags = texts[#fields], {}
  if tagged then
    local ok, decoded = pcall(cjson.decode, tagged)
    tags = ok and decoded or tags
  end
  for i, condition in ipairs(conditions) do
    local text = texts[i]
    if condition.path == 'version' and not text then
      text = '0'
    elseif condition.path == TAGS then
      text = false
    end
    if not matches_one(id, condition, text, tags) then
      return false
    end
  end
  return true
end

local function whole(entry)
  -- A metadata key of another type is not this entry's: the entry has none.
  local fields = redis.pcall('HGETALL', meta(entry[1]))
  return { entry[1], entry[2], fields.err and {} or fields }
end

local found = {}
if #conditions == 0 then
  for _, entry in ipairs(page(offset, limit)) do
    found[#found + 1] = whole(entry)
  end
  return found
end
local PAGE, position, skipped = 500, 0, 0
while true do
  local entries = page(position, PAGE)
  for _, entry in ipairs(entries) do
    if matches(entry[1]) then
      if skipped < offset then
        skipped = skipped + 1
      else
        found[#found + 1] = whole(entry)
        if #found >= limit then
          return found
        end
      end
    end
  end
  if #entries < PAGE then
    return found
  end
  position = position + PAGE
end
