-- Sets a kv value, unless the key holds something else: streams and indexes share the key space.
-- KEYS    the key | the kv keys written by native instances (set)
-- ARGV    the text | time to live in ms, or ''
-- returns 1; WRONGTYPE where the key holds something else
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'string' then
  return redis.error_reply('WRONGTYPE the key holds a ' .. kind)
end
if ARGV[2] == '' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
redis.call('SADD', KEYS[2], KEYS[1])
if kind == 'none' then
  prune_expired(KEYS[2])
end
return 1
