-- Deletes a kv value. A key of another type is kept.
-- KEYS    the key
-- returns 1 if there was a value, else 0
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then
  return 0
end
return redis.call('UNLINK', KEYS[1])
