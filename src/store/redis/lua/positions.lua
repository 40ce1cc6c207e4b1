-- Returns the last ids of subjects, after which a subscription starts.
-- ARGV    a subject, or a glob | '1' if it is a glob (every key of the database is visited once)
-- returns { subject, last id, ... }; a missing subject has the id 0-0
local found = {}
local function note(subject)
  local info = redis.call('XINFO', 'STREAM', subject)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      found[#found + 1] = subject
      found[#found + 1] = info[i + 1]
    end
  end
end
if ARGV[2] ~= '1' then
  if redis.call('TYPE', ARGV[1]).ok ~= 'stream' then
    return { ARGV[1], '0-0' }
  end
  note(ARGV[1])
  return found
end
local cursor, seen = '0', {}
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000, 'TYPE', 'stream')
  cursor = page[1]
  for _, subject in ipairs(page[2]) do
    if not seen[subject] then
      seen[subject] = true
      note(subject)
    end
  end
until cursor == '0'
return found
