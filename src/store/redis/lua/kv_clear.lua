-- Deletes the kv values that a glob matches. One script, so that later calls take effect after it.
-- With a literal beginning, every matching string of the database is a kv value; it visits every key of the database once,
-- which takes about a third of a second per million keys. Without one, other programs' strings would match: only keys that
-- native instances wrote are visited.
-- KEYS    the kv keys written by native instances (set)
-- ARGV    glob | '1' if it has a literal beginning
-- returns how many were deleted
local cursor, deleted = '0', 0
repeat
  local page
  if ARGV[2] == '1' then
    page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000, 'TYPE', 'string')
  else
    page = redis.call('SSCAN', KEYS[1], cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
  end
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    if redis.call('TYPE', key).ok == 'string' then
      deleted = deleted + redis.call('UNLINK', key)
    end
    redis.call('SREM', KEYS[1], key)
  end
until cursor == '0'
return deleted
