-- Returns a page of an index: highest score first, ties by id ascending.
-- KEYS    the index (sorted set). The hashes with metadata, <index>:meta:<id>, are derived from it.
-- ARGV    offset | limit | conditions as JSON: [{ path, any: [{ kind, text }], list }], '[]' for none | 'rows' or 'count'
--         | most entries to look at | most rows to return | optionally a place, after which it begins: score | id
-- returns rows: [id, score, [field, text, ...], id, ...] as JSON, one text being less work for the server and for the client
--         than many; what is empty is {}. count: how many match.
--         Where it has looked at as many as it may, a list of that, the place of the last, and how many matching ones it
--         skipped, so that the next call goes on there: rows or count | score | id | skipped
local call, pcall_redis = redis.call, redis.pcall
local index, offset, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local counts, max_entries, max_rows = ARGV[4] == 'count', tonumber(ARGV[5]), tonumber(ARGV[6])
local TAGS, prefix = '~nvent', KEYS[1] .. ':meta:'

-- Returns ids and scores at positions of that order. Redis reverses ids within equal scores: where scores are equal, the
-- ids of a group come from the ascending order, by rank.
local function page(from, count)
  local skip = from > 0 and 1 or 0
  -- One more on each side shows whether a group is cut.
  local raw = call('ZREVRANGE', index, from - skip, from + count, 'WITHSCORES')
  local last = math.min(#raw, (skip + count) * 2)
  local distinct = true
  for at = 4, #raw, 2 do
    if raw[at] == raw[at - 2] then
      distinct = false
      break
    end
  end
  if distinct then
    return raw, skip * 2 + 1, last
  end
  local sorted, at = {}, skip * 2 + 1
  local total = call('ZCARD', index)
  while at <= last do
    local score, to = raw[at + 1], at
    while to + 2 <= last and raw[to + 3] == score do
      to = to + 2
    end
    local above = call('ZCOUNT', index, '(' .. score, '+inf')
    local size = call('ZCOUNT', index, score, score)
    -- Rank of the group's first id in ascending order, and how much of the group lies before the page.
    local rank = total - above - size + (from + (at - skip * 2 - 1) / 2 - above)
    for _, id in ipairs(call('ZRANGE', index, rank, rank + (to - at) / 2)) do
      sorted[#sorted + 1] = id
      sorted[#sorted + 1] = score
    end
    at = to + 2
  end
  return sorted, 1, #sorted
end

-- Returns whether a text comes after another by its bytes; `<` depends on the locale.
local function is_after(text, other)
  for at = 1, math.min(#text, #other) do
    local a, b = string.byte(text, at), string.byte(other, at)
    if a ~= b then
      return a > b
    end
  end
  return #text > #other
end

-- Returns how many entries come up to a place: those with a higher score, and of those with its score the ids up to its own.
local function count_up_to(score, id)
  local above = call('ZCOUNT', index, '(' .. score, '+inf')
  local low, high = 0, call('ZCOUNT', index, score, score)
  local first = call('ZCARD', index) - above - high
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_after(call('ZRANGE', index, first + middle, first + middle)[1], id) then
      high = middle
    else
      low = middle + 1
    end
  end
  return above + low
end

local begin = ARGV[7] and count_up_to(ARGV[7], ARGV[8]) or 0

local found, matched, skipped = {}, 0, 0
local function result()
  return counts and matched or cjson.encode(found)
end
local function stopped(score, id)
  return { result(), score, id, skipped }
end

local function add(id, score)
  -- A metadata key of another type is not this entry's: the entry has none.
  local fields, n = pcall_redis('HGETALL', prefix .. id), #found
  found[n + 1], found[n + 2], found[n + 3] = id, score, fields.err and {} or fields
end

local conditions = cjson.decode(ARGV[3])
if #conditions == 0 then
  local entries, first, last = page(begin + offset, math.min(limit, max_rows))
  for at = first, last, 2 do
    add(entries[at], entries[at + 1])
  end
  if limit > max_rows and #found == max_rows * 3 then
    skipped = offset
    return stopped(entries[last], entries[last - 1])
  end
  return result()
end

-- The alternatives of a condition by kind, for one look-up each.
local fields = {}
for i, condition in ipairs(conditions) do
  fields[i] = condition.path
  condition.text, condition.string, condition.json, condition.number = {}, {}, {}, {}
  for _, wanted in ipairs(condition.any) do
    if wanted.kind == 'null' then
      condition.null = true
    elseif wanted.kind == 'number' then
      condition.json[wanted.text] = true
      condition.number[tonumber(wanted.text)] = true
    else
      condition[wanted.kind][wanted.text] = true
    end
  end
end
fields[#fields + 1] = TAGS

-- Returns whether there are fields or tags below a path, which makes it an object.
local function has_below(id, path, tags)
  local below = path .. '.'
  for name in pairs(tags) do
    if string.sub(name, 1, #below) == below then
      return true
    end
  end
  for _, name in ipairs(pcall_redis('HKEYS', prefix .. id)) do
    if string.sub(name, 1, #below) == below then
      return true
    end
  end
  return false
end

local function matches_one(id, condition, text, tags)
  local tag = type(tags[condition.path]) == 'string' and tags[condition.path]
  if not text then
    return condition.null and (not tag or tag == 'jnull') and not has_below(id, condition.path, tags)
  end
  if condition.text[text] and tag ~= 'v' .. text then
    return true
  end
  if tag == 's' .. text then
    return condition.string[text]
  end
  return condition.json[text] or condition.list == text
    -- Digits alone are equal only as text, see metadata.rs; fractions and exponents have more than one form.
    or (string.find(text, '[%.eE]') and is_number(text) and condition.number[tonumber(text)])
end

local function matches(id)
  local texts = pcall_redis('HMGET', prefix .. id, unpack(fields))
  texts = texts.err and {} or texts
  local tagged, tags = texts[#fields], {}
  if tagged then
    local ok, decoded = pcall(cjson.decode, tagged)
    tags = ok and type(decoded) == 'table' and decoded or tags
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

local PAGE, position = math.min(500, max_entries), begin
while true do
  local entries, first, last = page(position, PAGE)
  for at = first, last, 2 do
    if matches(entries[at]) then
      if skipped < offset then
        skipped = skipped + 1
      else
        matched = matched + 1
        if not counts then
          add(entries[at], entries[at + 1])
        end
        if matched >= limit then
          return result()
        elseif #found >= max_rows * 3 then
          return stopped(entries[at + 1], entries[at])
        end
      end
    end
  end
  if last - first + 1 < PAGE * 2 then
    return result()
  end
  position = position + PAGE
  if position - begin >= max_entries then
    return stopped(entries[last], entries[last - 1])
  end
end
