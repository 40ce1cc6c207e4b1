-- Publishes parked messages again, oldest first, and takes them out of the parked ones.
-- KEYS    the parked messages (stream) | the retained messages (stream) | the retained topics (set)
-- ARGV    topic | how many to keep
-- returns how many
local parked = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1000)
for _, entry in ipairs(parked) do
  local message, origin = '{}', ''
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'message' then
      message = entry[2][i + 1]
    elseif entry[2][i] == 'origin' then
      origin = entry[2][i + 1]
    end
  end
  local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'message', message, 'origin', origin)
  local rest = string.match(message, '^{%s*(.*)$') or '}'
  redis.call('PUBLISH', ARGV[1], '{"~nvent":"' .. origin .. '/' .. id .. '"' .. (rest == '}' and '' or ',') .. rest)
  redis.call('XDEL', KEYS[1], entry[1])
end
redis.call('SADD', KEYS[3], ARGV[1])
return #parked
