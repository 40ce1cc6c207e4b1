-- Deletes a kv value. A key of another type is kept.
-- KEYS    the key | the kv keys written by native instances (set)
-- returns 1 if there was a value, else 0
redis.call('SREM', KEYS[2], KEYS[1])
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then
  return 0
end
return redis.call('UNLINK', KEYS[1])
