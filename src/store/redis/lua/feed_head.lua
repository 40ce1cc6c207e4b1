-- Returns where the feed ends. The first call also starts the search for events of other writers (feed_adopt.lua).
-- KEYS    the feed (stream) | its state (hash)
-- returns { last position, Unix time in ms }
local now = redis.call('TIME')
local ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('HSETNX', KEYS[2], 'from', ms)
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
for i = 1, info.err and 0 or #info, 2 do
  if info[i] == 'last-generated-id' then
    return { info[i + 1], ms }
  end
end
return { '0-' .. (redis.call('HGET', KEYS[2], 'n') or '0'), ms }
