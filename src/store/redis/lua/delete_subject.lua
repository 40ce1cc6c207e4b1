-- Deletes a subject and keeps its last id for a day, so that later ids are greater.
-- KEYS    the subject (stream) | its last id (hash, expires after a day) | its claims (hash)
-- returns 1 if it had events, else 0
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then
  return 0
end
local had = redis.call('XLEN', KEYS[1]) > 0
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    redis.call('HSET', KEYS[2], 'last', info[i + 1])
    redis.call('EXPIRE', KEYS[2], 86400)
  end
end
redis.call('UNLINK', KEYS[1], KEYS[3])
return had and 1 or 0
