-- Sets a kv value, unless something else has this name: streams and indexes share the key space.
-- KEYS    the key
-- ARGV    the text | time to live in ms, or ''
-- returns 1
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'string' then
  return redis.error_reply('WRONGTYPE the key holds a ' .. kind)
end
if ARGV[2] == '' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
