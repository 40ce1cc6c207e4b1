-- Reads the events of a subject that pass filters, up to a limit, in one go.
-- KEYS    the subject (stream)
-- ARGV    first id | last id | limit or '' | 'asc' or 'desc' | earliest ts or '' | latest ts or '' | type, ...
-- returns entries as XRANGE does
local PAGE = 500
local first, last, ascending = ARGV[1], ARGV[2], ARGV[4] == 'asc'
local limit, from, to = tonumber(ARGV[3]) or math.huge, tonumber(ARGV[5]), tonumber(ARGV[6])
local types
for i = 7, #ARGV do
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

local found = {}
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
        return found
      end
    end
  end
  if #page < PAGE then
    return found
  end
  if ascending then
    first = '(' .. page[#page][1]
  else
    last = '(' .. page[#page][1]
  end
end
