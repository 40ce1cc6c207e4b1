-- Returns a page of the values that native instances wrote.
-- KEYS    the names of the keys (set)
-- ARGV    cursor
-- returns { next cursor, { key, text, ms until it expires or -1, ... } }
local page = redis.call('SSCAN', KEYS[1], ARGV[1], 'COUNT', 500)
local found = {}
for _, key in ipairs(page[2]) do
  local value = redis.pcall('GET', key)
  if type(value) == 'string' then
    found[#found + 1] = key
    found[#found + 1] = value
    found[#found + 1] = redis.call('PTTL', key)
  end
end
return { page[1], found }
