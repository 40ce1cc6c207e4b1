-- Publishes parked messages again, oldest first, and removes them from the parked ones. (After the functions of retain.lua.)
-- KEYS    the retained messages (stream) | the retained topics (set) | the numbers of the last messages (hash) |
--         how many messages each group missed by trimming (hash) | the parked messages (stream)
-- ARGV    topic | how many to keep | how many more to keep for groups | how many to publish at most
-- returns how many
local keys = { stream = KEYS[1], topics = KEYS[2], sequence = KEYS[3], trimmed = KEYS[4] }
local parked = redis.call('XRANGE', KEYS[5], '-', '+', 'COUNT', ARGV[4])
for _, entry in ipairs(parked) do
  local message, origin = '{}', ''
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'message' then
      message = entry[2][i + 1]
    elseif entry[2][i] == 'origin' then
      origin = entry[2][i + 1]
    end
  end
  local rest = string.match(message, '^{%s*(.*)$') or '}'
  retain(keys, ARGV[1], message, origin, '', (rest == '}' and '' or ',') .. rest, ARGV[2], ARGV[3])
  redis.call('XDEL', KEYS[5], entry[1])
end
return #parked
