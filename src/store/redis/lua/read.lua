-- Reads the events of a subject that pass filters, up to a limit.
-- KEYS    the subject (stream)
-- ARGV    first id | last id | limit | 'asc' or 'desc' | most events to look at | most events to return
--         | earliest ts or '' | latest ts or '' | type, ...
-- returns entries as XRANGE does | the id that it stopped at, where it has looked at as many as it may, or ''
local PAGE = 500
local first, last, ascending = ARGV[1], ARGV[2], ARGV[4] == 'asc'
local limit, max_events, max_rows = tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6])
local from, to = tonumber(ARGV[7]), tonumber(ARGV[8])
local types
for i = 9, #ARGV do
  types = types or {}
  types[ARGV[i]] = true
end

local function passes(entry)
  local kind, ts = 'unknown', nil
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'type' then
      kind = fields[i + 1]
    elseif fields[i] == 'ts' then
      ts = tonumber(fields[i + 1])
    end
  end
  ts = ts or tonumber(string.match(entry[1], '^%d+'))
  return (not types or types[kind]) and (not from or ts >= from) and (not to or ts <= to)
end

local found, seen = {}, 0
while true do
  local page
  if ascending then
    page = redis.call('XRANGE', KEYS[1], first, last, 'COUNT', PAGE)
  else
    page = redis.call('XREVRANGE', KEYS[1], last, first, 'COUNT', PAGE)
  end
  for _, entry in ipairs(page) do
    if passes(entry) then
      found[#found + 1] = entry
      if #found >= limit then
        return { found, '' }
      elseif #found >= max_rows then
        return { found, entry[1] }
      end
    end
  end
  if #page < PAGE then
    return { found, '' }
  end
  seen = seen + PAGE
  if seen >= max_events then
    return { found, page[#page][1] }
  end
  if ascending then
    first = '(' .. page[#page][1]
  else
    last = '(' .. page[#page][1]
  end
end
